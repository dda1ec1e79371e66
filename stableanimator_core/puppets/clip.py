"""A clip of a puppet, with its skeletons, face boxes and face masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..pose import people
from ..pose.draw import Picture, draw_frame
from .body import place
from .figure import Figure
from .keypoints import keypoints
from .look import Outfit, Person, draw_outfit, draw_person
from .motion import Pose, generate
from .scene import draw_scene

SMOOTHING = 4
"""Pictures are painted this many times larger and shrunk, for smooth edges."""
DRAWN_AT = 512
"""Side of the skeleton pictures before they are shrunk to the frames' size."""
FRAMINGS = {"half": 2.75, "knees": 3.6, "full": 5.3}
"""How many heads the height of the picture holds."""
LEAST_SIZE = 16
"""Smallest side of a picture, pixels."""


@dataclass(frozen=True, eq=False)
class PuppetClip:
    """Frames with everything known about them.

    Attributes:
        frames: uint8 [f H W 3] RGB.
        poses: who is where, one entry per frame.
        face_boxes: [f 4] x0, y0, x1, y1 in pixels, NaN where no face is seen.
        face_masks: uint8 [f H W], 255 on the face box.
        person_seed: who it is.
    """

    frames: Picture
    poses: people.Clip
    face_boxes: NDArray[np.float64]
    face_masks: Picture
    person_seed: int

    def skeletons(self) -> Picture:
        """Skeleton pictures, uint8 [f H W 3]: drawn large and shrunk, as their lines are thinner than a pixel here."""
        height, width = self.frames.shape[1:3]
        large = [draw_frame(frame, DRAWN_AT, DRAWN_AT) for frame in self.poses]
        return np.stack(
            [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in large]
        )


def make_clip(
    person_seed: int,
    motion_seed: int,
    num_frames: int,
    size: int = 128,
    *,
    poses: Sequence[Pose] | None = None,
    framing: str | None = None,
) -> PuppetClip:
    """A person doing a motion in a place; the same numbers give the same pixels.

    Args:
        person_seed: face, hair and build.
        motion_seed: the motion, the same for everybody; with the person also outfit, place and camera.
        num_frames: frames to make.
        size: side of the pictures, pixels.
        poses: the motion, instead of a generated one; it is repeated if it is too short.
        framing: a key of FRAMINGS, instead of a drawn one.

    Raises:
        InputError: a negative seed, no frame, pictures under `LEAST_SIZE`, no pose, or an unknown framing.
    """
    at_least(0, person_seed=person_seed, motion_seed=motion_seed)
    at_least(1, num_frames=num_frames)
    at_least(LEAST_SIZE, size=size)
    if poses is not None and not len(poses):
        raise InputError("poses", "are none", "give one pose at least, or leave them out")
    if framing is not None:
        known_framing(framing)
    rng = np.random.default_rng([person_seed, motion_seed, 2])
    person, outfit = draw_person(person_seed), draw_outfit(rng)
    motion = generate(np.random.default_rng([motion_seed, 3]), num_frames) if poses is None else list(poses)
    framing = framing or str(rng.choice(list(FRAMINGS), p=[0.45, 0.3, 0.25]))
    scene, camera = draw_scene(rng, size * SMOOTHING), _camera(rng, person, framing, size * SMOOTHING)
    hands = rng.uniform() < 0.6
    shown = [_show(person, outfit, motion[i % len(motion)], camera, scene) for i in range(num_frames)]
    pictures: list[Picture] = [
        cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for _, picture in shown
    ]  # pyright: ignore[reportAssignmentType]
    boxes = np.array([_face_box(figure, size) for figure, _ in shown])
    frames = [
        people.Frame((keypoints(figure, size * SMOOTHING, hands=hands),), size, size) for figure, _ in shown
    ]
    return PuppetClip(np.stack(pictures), frames, boxes, _masks(boxes, size), person_seed)


def at_least(least: int, **numbers: int) -> None:
    """Refuse numbers below `least` by name; raises InputError."""
    for name, value in numbers.items():
        if value < least:
            raise InputError(name, f"is {value}", f"use {least} or more")


def known_framing(framing: str) -> None:
    """Refuse what is no key of FRAMINGS; raises InputError."""
    if framing not in FRAMINGS:
        raise InputError("framing", f"is '{framing}'", f"choose one of {', '.join(FRAMINGS)}")


def _camera(
    rng: np.random.Generator, person: Person, framing: str, size: int
) -> tuple[float, NDArray[np.float64]]:
    """Pixels per head, and the pixel of the resting pelvis."""
    scale = size / (FRAMINGS[framing] * rng.uniform(0.95, 1.08))
    crown = size * (0.11 if framing == "half" else 0.06) + rng.uniform(-0.02, 0.03) * size
    pelvis = crown + scale * (0.5 + 0.7 + person.torso)
    return scale, np.array([size * (0.5 + rng.normal(0, 0.03)), pelvis])


def _show(person: Person, outfit: Outfit, pose: Pose, camera, scene: Picture) -> tuple[Figure, Picture]:
    scale, origin = camera
    figure = Figure(person, outfit, pose, place(person, pose), scale, origin)
    picture = scene.copy()
    figure.paint(picture)
    return figure, picture


def _face_box(figure: Figure, size: int) -> NDArray[np.float64]:
    head = figure.head
    box = np.array(head.box()) / SMOOTHING if head.faces_us() else np.full(4, np.nan)
    x0, y0, x1, y1 = np.clip(box, 0, size)
    whole = (x1 - x0) * (y1 - y0) > 0.6 * (box[2] - box[0]) * (box[3] - box[1])
    return np.array([x0, y0, x1, y1]) if whole else np.full(4, np.nan)


def _masks(boxes: NDArray[np.float64], size: int) -> Picture:
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, box in zip(masks, boxes, strict=True):
        if not np.isnan(box).any():
            x0, y0, x1, y1 = np.round(box).astype(int)
            mask[y0:y1, x0:x1] = 255
    return masks
