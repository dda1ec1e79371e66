"""One puppet for a demonstration: its portrait, and its own skeleton dancing to a motion it was never drawn with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pose import people
from ..pose.draw import Picture
from .clip import DRAWN_AT, at_least, known_framing, make_clip
from .motion import _ARMS, _LEGS, Pose, generate, unit

SIZE_MULTIPLE = 64
SIZES = (64, 512)
MOST_FRAMES = 1024
_SETTING_OFF = 6  # frames from standing still to the middle of the motion
_MOTION_AT = 64  # side of the pictures that only the skeletons are taken from


@dataclass(frozen=True, eq=False)
class DemoPuppet:
    """A person and a dance.

    Attributes:
        portrait: uint8 [H W 3] RGB, standing still and facing us.
        face_mask: uint8 [H W], 255 on the face box.
        portrait_pose: the portrait's skeleton.
        motion: the skeletons of the dance; the first is the portrait's.
    """

    portrait: Picture
    face_mask: NDArray[np.uint8]
    portrait_pose: people.Frame
    motion: people.Clip


def demo_puppet(
    person: int, motion_seed: int, num_frames: int = 16, size: int = 128, framing: str = "half"
) -> DemoPuppet:
    """A person's portrait and, with the same build, camera and place, the skeletons of a generated dance.

    Args:
        person: who it is; from `training_set.HELD_OUT` on nobody was trained on.
        motion_seed: the dance, the outfit and the place.
        num_frames: skeletons, 1..`MOST_FRAMES`.
        size: side of the portrait in pixels, a multiple of 64 within `SIZES`.
        framing: a key of `FRAMINGS`: how much of the body is seen.

    Raises:
        InputError: a number outside its range, or an unknown framing.
    """
    _check(person, motion_seed, num_frames, size, framing)
    poses = dance(motion_seed, num_frames)
    still = make_clip(person, motion_seed, 1, size, poses=[rest()], framing=framing)
    moving = make_clip(person, motion_seed, num_frames, _MOTION_AT, poses=poses, framing=framing)
    portrait_pose, *motion = [
        replace(frame, height=DRAWN_AT, width=DRAWN_AT) for frame in [*still.poses, *moving.poses]
    ]
    return DemoPuppet(still.frames[0], still.face_masks[0], portrait_pose, motion)


def rest() -> Pose:
    """Standing still: arms down, facing us, mouth shut."""
    limbs = unit(np.array([*_ARMS["down"], *_LEGS["stand"]] * 2))
    return Pose(limbs, np.zeros(3), np.zeros(3), np.zeros(2), mouth=0.0, blink=0.0)


def dance(seed: int, num_frames: int) -> list[Pose]:
    """A generated motion that sets off from rest: what `demo_puppet` dances."""
    motion, start = generate(np.random.default_rng([seed, 3]), num_frames), rest()
    shares = np.clip(np.arange(num_frames) / _SETTING_OFF, 0, 1)
    return [_between(start, pose, s * s * (3 - 2 * s)) for pose, s in zip(motion, shares, strict=True)]


def _between(first: Pose, second: Pose, share: float) -> Pose:
    def mixed(a, b):
        return a + share * (b - a)

    return Pose(
        unit(mixed(first.limbs, second.limbs) + 1e-9),
        mixed(first.body, second.body),
        mixed(first.head, second.head),
        mixed(first.shift, second.shift),
        mixed(first.mouth, second.mouth),
        second.blink if share else first.blink,
    )


def _check(person: int, motion_seed: int, num_frames: int, size: int, framing: str) -> None:
    at_least(0, person=person, motion_seed=motion_seed)
    if not 1 <= num_frames <= MOST_FRAMES:
        raise InputError("num_frames", f"is {num_frames}", f"use 1 to {MOST_FRAMES}")
    if size % SIZE_MULTIPLE or not SIZES[0] <= size <= SIZES[1]:
        raise InputError(
            "size", f"is {size}", f"use a multiple of {SIZE_MULTIPLE} from {SIZES[0]} to {SIZES[1]}"
        )
    known_framing(framing)
