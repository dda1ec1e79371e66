"""Which frames of a video a training sample takes: a clip to predict, and one other frame as the reference.

Code: `animation/dataset/animation_dataset.py`, Francis-Rings/StableAnimator @ 020e7f2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError

CLIP_FRAMES = 16
STRIDE = 4


@dataclass(frozen=True)
class Clip:
    """Frame numbers of one training sample.

    Attributes:
        frames: frames to predict, in order.
        reference: the frame whose picture and face are given; never one of `frames`.
    """

    frames: tuple[int, ...]
    reference: int


def clip_length(video_length: int, num_frames: int = CLIP_FRAMES, stride: int = STRIDE) -> int:
    """How many frames of the video a clip reaches over, first and last included; all of a short video."""
    return min(video_length, (num_frames - 1) * stride + 1)


def clip_frames(
    video_length: int, start: int, num_frames: int = CLIP_FRAMES, stride: int = STRIDE
) -> tuple[int, ...]:
    """Numbers of `num_frames` frames spread evenly over a clip, rounded down.

    A video too short for the stride gets a smaller one; below `num_frames` frames some are repeated.

    Args:
        video_length: frames of the video.
        start: first frame, from 0 to video_length - clip_length.
        num_frames: frames to take.
        stride: distance between them where the video is long enough.
    """
    last = start + clip_length(video_length, num_frames, stride) - 1
    return tuple(np.linspace(start, last, num_frames, dtype=int).tolist())


def reference_candidates(video_length: int, frames: Sequence[int]) -> list[int]:
    """Frames of the video that are not in the clip; those between its frames are allowed."""
    return sorted(set(range(video_length)).difference(frames))


def draw_clip(
    video_length: int, generator: torch.Generator, num_frames: int = CLIP_FRAMES, stride: int = STRIDE
) -> Clip:
    """A clip from a uniformly drawn start, and a reference drawn uniformly from the other frames.

    The official loader looks for a free frame outside a second clip of stride 2 if there is none outside the
    first, and stops by a division by zero. A video with more frames than the clip always has one and no other
    video has, so this is an error here and no second clip is drawn.

    Args:
        video_length: frames of the video.
        generator: source of both draws, start first.
        num_frames: frames to take.
        stride: distance between them where the video is long enough.

    Raises:
        InputError: the video has no frame to spare for the reference.
    """
    if video_length <= num_frames:
        raise InputError(
            "training video",
            f"has {video_length} frames, {num_frames} go into a clip and the reference must be another one",
            "leave this video out, or train on clips of fewer frames",
        )
    last_start = video_length - clip_length(video_length, num_frames, stride)
    frames = clip_frames(video_length, _draw(last_start + 1, generator), num_frames, stride)
    candidates = reference_candidates(video_length, frames)
    return Clip(frames, candidates[_draw(len(candidates), generator)])


def _draw(count: int, generator: torch.Generator) -> int:
    """Uniform over 0 .. count - 1."""
    return int(torch.randint(count, (), generator=generator, device=generator.device))
