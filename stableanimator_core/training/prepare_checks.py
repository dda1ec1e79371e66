"""Which frames of a take are good enough to train on, and which runs of them make clips.

Axes: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..face.boxes import FaceBoxes
from ..pose.people import Frame, Person
from ..pose.select import select_person
from .prepare_settings import SETS, Settings

NO_PERSON = "no person"
SEVERAL_PEOPLE = "several people"
JOINTS_MISSING = "joints missing"
FACE_TOO_SMALL = "face too small"
FACE_ABSENT = "face absent"
BLURRED = "blurred"
TOO_SHORT = "too short"
UNREADABLE = "unreadable"
REASONS = (
    *(NO_PERSON, SEVERAL_PEOPLE, JOINTS_MISSING, FACE_TOO_SMALL, FACE_ABSENT, BLURRED, TOO_SHORT),
    UNREADABLE,
)
"""Why frames are dropped; `TOO_SHORT` and part of `FACE_ABSENT` drop whole runs of them."""

_HEADROOM = 0.15  # of a figure that is taller than the picture; the joints end at the eyes and ears


@dataclass(frozen=True)
class Placement:
    """How frames of one size become pictures of a set: scaled whole, then cut.

    Attributes:
        image_set: "rec" or "vec".
        scaled: height and width of the whole frame before the cut.
        final: height and width of the picture.
    """

    image_set: str
    scaled: tuple[int, int]
    final: tuple[int, int]

    @property
    def spare(self) -> tuple[int, int]:
        """Rows and columns that the cut takes away."""
        return self.scaled[0] - self.final[0], self.scaled[1] - self.final[1]


def place(height: int, width: int, settings: Settings) -> Placement:
    """The set and the picture's size for frames of this size, in pixels."""
    image_set = settings.image_set if settings.image_set != "auto" else nearest_set(height, width)
    target_height, target_width = SETS[image_set]
    if settings.fit == "stretch":
        size = SETS[image_set] if settings.size == "set" else (height, width)
        return Placement(image_set, size, size)
    if settings.size == "set":
        scale = max(target_height / height, target_width / width)
        scaled = max(target_height, round(height * scale)), max(target_width, round(width * scale))
        return Placement(image_set, scaled, SETS[image_set])
    scale = min(height / target_height, width / target_width)
    final = max(1, round(target_height * scale)), max(1, round(target_width * scale))
    return Placement(image_set, (height, width), (min(final[0], height), min(final[1], width)))


def nearest_set(height: int, width: int) -> str:
    """The set whose aspect is nearest, by ratio."""
    return min(SETS, key=lambda name: abs(np.log(width / height * SETS[name][0] / SETS[name][1])))


def choose_people(frames: Sequence[Frame], settings: Settings) -> tuple[list[Frame], list[str]]:
    """Each frame with one person at most, and each frame's problem so far, "" for none."""
    if not any(frame.people for frame in frames):
        return list(frames), [NO_PERSON] * len(frames)
    how = "largest" if settings.person == "only" else settings.person
    chosen = select_person(frames, how).frames
    problems = [NO_PERSON if not frame.people else "" for frame in chosen]
    if settings.person == "only":
        for number, frame in enumerate(frames):
            if not problems[number] and _others(frame, chosen[number].people[0], settings.second_person):
                problems[number] = SEVERAL_PEOPLE
    return chosen, problems


def cut_corner(frames: Sequence[Frame], placement: Placement) -> tuple[int, int]:
    """First row and column of the cut, in pixels of the scaled frame: around the person, one for all frames.

    The middle of the cut lies on the median of the person's middles; of a figure taller than the picture the
    head is kept.
    """
    boxes = [frame.people[0].box() for frame in frames if frame.people]
    known = np.array([box for box in boxes if box is not None])  # [n 4] fractions
    if not len(known):
        return placement.spare[0] // 2, placement.spare[1] // 2
    left, top, right, bottom = np.median(known, axis=0) * [*placement.scaled[::-1], *placement.scaled[::-1]]
    height, width = placement.final
    row = (top + bottom) / 2 - height / 2
    if bottom - top > height * (1 - _HEADROOM):
        row = top - height * _HEADROOM
    column = (left + right) / 2 - width / 2
    rows, columns = placement.spare
    return int(np.clip(round(row), 0, rows)), int(np.clip(round(column), 0, columns))


def in_picture(frame: Frame, placement: Placement, corner: tuple[int, int]) -> Frame:
    """The frame's people as fractions of the cut picture."""
    scaled = np.array(placement.scaled[::-1], dtype=np.float64)
    offset = np.array(corner[::-1], dtype=np.float64)
    final = np.array(placement.final[::-1], dtype=np.float64)
    people = tuple(person.moved(lambda points: (points * scaled - offset) / final) for person in frame.people)
    return replace(frame, people=people, width=placement.final[1], height=placement.final[0])


def joints_problem(frame: Frame, settings: Settings) -> str:
    """What is wrong with the chosen person's body, "" for nothing."""
    person = frame.people[0]
    inside = ((person.body >= 0) & (person.body <= 1)).all(axis=-1)
    return JOINTS_MISSING if int((person.visible & inside).sum()) < settings.min_joints else ""


def picture_problem(
    picture: Image.Image, frame: Frame, faces: FaceBoxes, image_set: str, settings: Settings
) -> str:
    """What is wrong with the face or the focus, "" for nothing.

    Args:
        picture: RGB, as it is stored.
        frame: its chosen person.
        faces: one list: the faces in it, pixels.
        image_set: whose size blur is measured at.
        settings: the thresholds.
    """
    heights = [box.bottom - box.top for box in faces[0]]
    if not heights and settings.no_face == "drop":
        return FACE_ABSENT
    if heights and max(heights) < settings.min_face * picture.height:
        return FACE_TOO_SMALL
    if settings.min_sharpness and sharpness(picture, frame.people[0], image_set) < settings.min_sharpness:
        return BLURRED
    return ""


def sharpness(picture: Image.Image, person: Person, image_set: str) -> float:
    """Variance of the Laplacian where the person is; blurred backgrounds do not count.

    The measure of Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    height, width = SETS[image_set]
    grey = np.asarray(picture.resize((width, height)).convert("L"), dtype=np.float32)
    box = person.box() or (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = np.clip(box, 0, 1) * [width, height, width, height]
    part = grey[int(top) : max(int(bottom), int(top) + 3), int(left) : max(int(right), int(left) + 3)]
    if min(part.shape) < 3:
        part = grey
    around = part[:-2, 1:-1] + part[2:, 1:-1] + part[1:-1, :-2] + part[1:-1, 2:]
    return float((around - 4 * part[1:-1, 1:-1]).var())


def good_runs(problems: Sequence[str], bridge: int) -> list[list[int]]:
    """Numbers of the good frames, in runs; at most `bridge` bad ones in a row are left out within a run."""
    runs: list[list[int]] = []
    for number, problem in enumerate(problems):
        if problem:
            continue
        if runs and number - runs[-1][-1] - 1 <= bridge:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _others(frame: Frame, chosen: Person, share: float) -> bool:
    """Whether somebody else is at least `share` as tall."""
    ours = chosen.box()
    if ours is None:
        return False
    boxes = [person.box() for person in frame.people if person is not chosen]
    return any(box is not None and box[3] - box[1] >= share * (ours[3] - ours[1]) for box in boxes)
