"""Fit frames of one size into pictures of another: keep proportions, or stretch as the official code does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .people import Array, Clip, Frame

FITS = ("contain", "cover", "stretch")


def fit_frames(frames: Sequence[Frame], height: int, width: int, how: str = "contain") -> Clip:
    """Frames whose points are fractions of a `width` x `height` picture.

    Args:
        frames: the clip, any size.
        height: of the new picture, pixels.
        width: likewise.
        how: "contain" shows all of the frame with a margin, "cover" fills the picture and cuts, "stretch" distorts.

    Raises:
        InputError: another `how`.
    """
    if how not in FITS:
        raise InputError("fit", f"is '{how}'", f"choose one of {', '.join(FITS)}")
    return [_fitted(frame, np.array([width, height], dtype=np.float64), how) for frame in frames]


def _fitted(frame: Frame, target: Array, how: str) -> Frame:
    new = replace(frame, width=int(target[0]), height=int(target[1]))
    if how == "stretch":
        return new
    scales = target / frame.size
    scale = scales.min() if how == "contain" else scales.max()
    shrink = frame.size * scale / target  # of the frame in the picture, per axis
    return replace(
        new, people=tuple(person.moved(lambda p: (p - 0.5) * shrink + 0.5) for person in frame.people)
    )
