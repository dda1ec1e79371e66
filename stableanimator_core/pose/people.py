"""The people of a clip: joints, face and hands as arrays. All pose modules exchange these.

Joint order and names: OpenPose's 18-point body (Cao et al., arXiv:1812.08008), 68-point face, 21-point hands.
Points are [n 2] with x, y as fractions of the frame's width and height, scores [n]. A point at (0, 0) with
score 0 is absent: nobody saw it. A low score with a place is a doubtful point, and is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BODY_JOINTS = (
    *("nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist"),
    *("r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear", "l_ear"),
)
JOINT = {name: number for number, name in enumerate(BODY_JOINTS)}
PART_SIZES = {"body": 18, "face": 68, "left_hand": 21, "right_hand": 21, "pupils": 2}
VISIBLE = 0.3
"""A body joint above this score counts as seen, in drawing and in fits (the official threshold)."""


def _absent(size: int) -> Callable[[], Array]:
    return lambda: np.zeros((size, 2))


def _unseen(size: int) -> Callable[[], Array]:
    return lambda: np.zeros(size)


@dataclass(frozen=True, eq=False)
class Person:
    """One person of one frame; a part that is left out is absent.

    Attributes:
        body: [18 2] joints in `BODY_JOINTS` order, fractions of the frame; `body_score` [18].
        face: [68 2] and `face_score` [68].
        left_hand: [21 2] and `left_hand_score` [21]; the person's own left (joints at joint 7).
        right_hand: [21 2] and `right_hand_score` [21].
        pupils: [2 2] OpenPose's face points 69 and 70, and `pupils_score` [2]; never drawn.
    """

    body: Array = field(default_factory=_absent(18))
    body_score: Array = field(default_factory=_unseen(18))
    face: Array = field(default_factory=_absent(68))
    face_score: Array = field(default_factory=_unseen(68))
    left_hand: Array = field(default_factory=_absent(21))
    left_hand_score: Array = field(default_factory=_unseen(21))
    right_hand: Array = field(default_factory=_absent(21))
    right_hand_score: Array = field(default_factory=_unseen(21))
    pupils: Array = field(default_factory=_absent(2))
    pupils_score: Array = field(default_factory=_unseen(2))

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = np.asarray(getattr(self, entry.name), dtype=np.float64)
            size = PART_SIZES[entry.name.removesuffix("_score")]
            shape = (size,) if entry.name.endswith("_score") else (size, 2)
            if value.shape != shape:
                raise ValueError(f"{entry.name} has shape {value.shape}, it must be {shape}")
            object.__setattr__(self, entry.name, value)

    def part(self, name: str) -> tuple[Array, Array]:
        """Points [n 2] and scores [n] of the part `name`, a key of `PART_SIZES`."""
        return getattr(self, name), getattr(self, f"{name}_score")

    def with_part(self, name: str, points: Array, scores: Array) -> Person:
        """This person with one part exchanged."""
        return replace(self, **{name: points, f"{name}_score": scores})

    def moved(self, move: Callable[[Array], Array]) -> Person:
        """This person with every present point mapped by `move` ([n 2] -> [n 2]); absent ones stay absent."""
        return self.moved_by_part(lambda name, points: move(points))

    def moved_by_part(self, move: Callable[[str, Array], Array]) -> Person:
        """As `moved`, for a `move` that is told which part ([n 2]) it maps."""
        changes = {}
        for name in PART_SIZES:
            points, scores = self.part(name)
            changes[name] = np.where(is_absent(points, scores)[:, None], 0.0, move(name, points))
        return replace(self, **changes)

    @property
    def visible(self) -> Mask:
        """[18] which body joints are seen (score above `VISIBLE`)."""
        return self.body_score > VISIBLE

    def box(self) -> tuple[float, float, float, float] | None:
        """x0, y0, x1, y1 around the seen joints, fractions of the frame; None for fewer than two."""
        points = self.body[self.visible]
        if len(points) < 2:
            return None
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True, eq=False)
class Frame:
    """Everybody in one picture.

    Attributes:
        people: in the detector's order, which is falling score; empty if nobody was found.
        width: of the picture the points are fractions of, pixels.
        height: likewise.
    """

    people: tuple[Person, ...]
    width: int
    height: int

    @property
    def size(self) -> Array:
        """[2] width and height, to turn fractions into pixels."""
        return np.array([self.width, self.height], dtype=np.float64)


Clip = list[Frame]


def is_absent(points: Array, scores: Array) -> Mask:
    """[n] which points are absent: at (0, 0) with score 0."""
    return (scores == 0) & (points == 0).all(axis=-1)
