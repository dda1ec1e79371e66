"""Pictures to judge an alignment by: the skeleton over the reference photo, the verdict in words."""

from __future__ import annotations

import math
import textwrap

import numpy as np

from .draw import Picture, draw_frame
from .misfit import Misfit
from .people import Clip, Frame

LEVEL_COLOURS = {"FIT OK": (22, 125, 60), "CHECK": (190, 110, 0), "BAD": (185, 28, 28)}
_UNKNOWN = (90, 90, 90)
_PHOTO_SHARE = 0.7
_GHOST_SHARE = 0.6
_SKELETON_SHARE = 0.85


def overlay(
    image: Picture,
    frame: Frame,
    misfit: Misfit | None = None,
    reference: Frame | None = None,
    label: str = "",
) -> Picture:
    """The skeleton of `frame` in colours over `image`, uint8 [H W 3] RGB.

    Args:
        image: the reference photo, uint8 [H W 3].
        frame: the aligned driving pose; its points are fractions of the photo.
        misfit: its verdict becomes a badge: green fits, amber should be checked, red is bad.
        reference: the photo's own pose, drawn in white beneath.
        label: written at the bottom left.
    """
    height, width = image.shape[:2]
    picture = image.astype(np.float32) * _PHOTO_SHARE
    if reference is not None:
        ghost = _thick(draw_frame(reference, height, width, hands=False, face=False)).any(axis=2)
        picture[ghost] = (1 - _GHOST_SHARE) * picture[ghost] + _GHOST_SHARE * 255
    limbs = _thick(draw_frame(frame, height, width, face=False))
    skeleton = np.maximum(limbs, draw_frame(frame, height, width, body=False, hands=False))
    drawn = skeleton.any(axis=2)
    bright = np.minimum(skeleton[drawn].astype(np.float32) / 0.6, 255)  # limbs are dimmed for the network
    picture[drawn] = (1 - _SKELETON_SHARE) * picture[drawn] + _SKELETON_SHARE * bright
    result = picture.round().clip(0, 255).astype(np.uint8)
    if misfit is not None:
        result = _written(result, misfit.text, LEVEL_COLOURS.get(misfit.level, _UNKNOWN), top=True)
    return _written(result, label, (0, 0, 0), top=False) if label else result


def contact_sheet(image: Picture, frames: Clip, misfit: Misfit, reference: Frame | None = None) -> Picture:
    """Overlays of the first, the worst and the last frame side by side: uint8 [H 3W 3]."""
    distance = misfit.per_frame
    worst = int(np.nanargmax(distance)) if len(distance) and not np.isnan(distance).all() else 0
    shown = [("first", 0), ("worst", worst), ("last", len(frames) - 1)]
    panels = []
    for word, number in shown:
        apart = "" if np.isnan(distance[number]) else f", {distance[number]:.0%} of the body height away"
        label = (
            f"{word} frame ({number}){apart}" if frames[number].people else f"{word} frame ({number}): nobody"
        )
        badge = misfit if word == "first" else None
        panels.append(overlay(image, frames[number], badge, reference, label))
    return np.concatenate(panels, axis=1)


def _thick(skeleton: Picture) -> Picture:
    """Strokes made wide enough to be seen on a photo."""
    import cv2

    side = 2 * math.ceil(min(skeleton.shape[:2]) / 512) + 1
    return np.asarray(cv2.dilate(skeleton, np.ones((side, side), dtype=np.uint8)), dtype=np.uint8)


def _written(picture: Picture, text: str, colour: tuple[int, int, int], *, top: bool) -> Picture:
    """`text` in white on a coloured field along the top, or at the bottom."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    size = max(10, round(min(height, width) / 28))
    font = ImageFont.load_default(size)
    columns = max(8, int(width / (0.52 * size)))
    lines = "\n".join(textwrap.wrap(text, columns))
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    left, upper, right, lower = pen.multiline_textbbox((0, 0), lines, font=font)
    pad = size // 2
    field_height = math.ceil(lower - upper) + 2 * pad
    y = 0 if top else height - field_height
    pen.rectangle((0, y, width if top else math.ceil(right - left) + 2 * pad, y + field_height), fill=colour)
    pen.multiline_text((pad - left, y + pad - upper), lines, fill=(255, 255, 255), font=font)
    return np.asarray(canvas)
