"""Which person of a clip: the largest, the most central, by number, or one followed through the clip.

Tracking predicts each person with the speed seen last and assigns the detections of a frame to the
predictions at the least total cost (Kuhn 1955; SciPy's `linear_sum_assignment`), so that two people who
cross stay themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from ..errors import InputError, NoPersonError
from .people import Array, Frame, Mask, Person

How = Literal["largest", "central", "index", "tracked", "all"]
WAYS: tuple[str, ...] = get_args(How)

MAX_ABSENCE = 30
"""Frames that somebody may be away and still be the same person."""

Track = dict[int, int]
"""Frame number -> place in that frame's people."""

_NEVER = 1e6
_OVERLAP_COST, _SIZE_COST = 0.5, 0.5
_MAX_STEP, _STEP_PER_ABSENCE = 0.6, 0.05  # of the figure's size, between prediction and detection
_NEW_SPEED = 0.4
_MAX_PREDICTED = 10  # frames; a speed says nothing about later


@dataclass(frozen=True, eq=False)
class Selection:
    """A clip with the chosen people only.

    Attributes:
        frames: as many as before.
        missing: numbers of the frames in which the chosen person was not found.
    """

    frames: list[Frame]
    missing: list[int]


def select_person(
    frames: Sequence[Frame], how: How = "tracked", index: int = 0, what: str = "poses"
) -> Selection:
    """Keep one person of each frame, or all.

    Args:
        frames: the clip.
        how: "largest" and "central" decide in each frame anew; "index" takes the detector's order; "tracked"
            follows one person; "all" keeps everybody.
        index: for "index" the place in the detector's order, for "tracked" the rank by presence (size times
            frames).
        what: how the user knows the clip, for messages.

    Raises:
        NoPersonError: nobody is found in any frame, or nobody of that number.
        InputError: an unknown `how`, a negative number, or no frames.
    """
    if how not in WAYS:
        raise InputError("person choice", f"is {how!r}", f"use one of {', '.join(WAYS)}")
    if index < 0 or not frames:
        problem = "hold no frames" if index >= 0 else f"have no person number {index}"
        raise InputError(what, problem, "give at least one frame and a number from 0")
    most = max(len(frame.people) for frame in frames)
    if most == 0:
        raise NoPersonError(
            what, f"show nobody in any of the {len(frames)} frames", "use a clip that shows a person"
        )
    if how == "all":
        return Selection(list(frames), [n for n, frame in enumerate(frames) if not frame.people])
    chosen = _chosen(frames, how, index, what)
    kept = [
        Frame((frame.people[chosen[n]],) if n in chosen else (), frame.width, frame.height)
        for n, frame in enumerate(frames)
    ]
    return Selection(kept, [n for n in range(len(frames)) if n not in chosen])


def track_people(frames: Sequence[Frame]) -> list[Track]:
    """Everybody who can be followed, most present first; people with under two seen joints are left out."""
    tracks: list[_Figure] = []
    for number, frame in enumerate(frames):
        seen = [place for place, person in enumerate(frame.people) if person.box() is not None]
        unit = frame.size / frame.height  # square units, whatever the canvas
        figures = [_Figure(frame.people[place], unit, number, place) for place in seen]
        alive = [track for track in tracks if number - track.last <= MAX_ABSENCE]
        for track, figure in _assigned(alive, figures, number):
            track.follow(figure)
            figures.remove(figure)
        tracks += figures
    tracks.sort(key=lambda track: -track.presence)
    return [track.places for track in tracks]


def _chosen(frames: Sequence[Frame], how: How, index: int, what: str) -> Track:
    if how == "tracked":
        tracks = track_people(frames)
        if index >= len(tracks):
            problem = f"show {len(tracks)} people who can be followed, number {index} is asked for"
            raise NoPersonError(what, problem, "use a smaller number; 0 is the most present person")
        return tracks[index]
    if how == "index":
        chosen = {n: index for n, frame in enumerate(frames) if index < len(frame.people)}
        if not chosen:
            most = max(len(frame.people) for frame in frames)
            problem = f"show at most {most} people at a time, number {index} is asked for"
            raise NoPersonError(what, problem, "use a smaller number; 0 is the first person")
        return chosen
    rank = _size_rank if how == "largest" else _centre_rank
    return {
        n: max(range(len(f.people)), key=lambda p: rank(f.people[p]))
        for n, f in enumerate(frames)
        if f.people
    }


def _size_rank(person: Person) -> float:
    box = person.box()
    return (box[2] - box[0]) * (box[3] - box[1]) if box else -1.0


def _centre_rank(person: Person) -> float:
    box = person.box()
    return -float(np.hypot((box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5)) if box else -_NEVER


@dataclass(eq=False)
class _Figure:
    """One person as followed so far; fresh ones stand for a detection."""

    person: Person
    unit: Array  # [2] fractions -> square units
    last: int
    place: int
    body: Array = field(init=False)  # [18 2]
    seen: Mask = field(init=False)
    size: float = field(init=False)
    speed: Array = field(default_factory=lambda: np.zeros(2))
    places: Track = field(default_factory=dict)
    presence: float = 0.0

    def __post_init__(self) -> None:
        self.body, self.seen = self.person.body * self.unit, self.person.visible
        self.size = max(float(np.hypot(*np.ptp(self.body[self.seen], axis=0))), 1e-6)
        self.places[self.last] = self.place
        self.presence = self.size

    def follow(self, found: _Figure) -> None:
        """Take over what was detected."""
        common = self.seen & found.seen
        if common.any():
            step = (found.body - self.body)[common].mean(axis=0) / (found.last - self.last)
            known = len(self.places) > 1
            self.speed = (1 - _NEW_SPEED) * self.speed + _NEW_SPEED * step if known else step
        self.body, self.seen, self.size, self.last = found.body, found.seen, found.size, found.last
        self.places[found.last] = found.place
        self.presence += found.size

    def cost(self, found: _Figure, number: int) -> float:
        """How unlikely it is that `found` in frame `number` is this figure, in figure sizes."""
        absence = number - self.last
        predicted = self.body + self.speed * min(absence, _MAX_PREDICTED)
        common = self.seen & found.seen
        size = (self.size + found.size) / 2
        if common.any():
            distance = float(np.linalg.norm((predicted - found.body)[common], axis=-1).mean()) / size
        else:
            centres = predicted[self.seen].mean(axis=0) - found.body[found.seen].mean(axis=0)
            distance = float(np.linalg.norm(centres)) / size
        if distance > _MAX_STEP + _STEP_PER_ABSENCE * absence:
            return _NEVER
        overlap = _overlap(_box(predicted[self.seen]), _box(found.body[found.seen]))
        growth = abs(float(np.log(found.size / self.size)))
        return distance + _OVERLAP_COST * (1 - overlap) + _SIZE_COST * growth


def _assigned(tracks: list[_Figure], figures: list[_Figure], number: int) -> list[tuple[_Figure, _Figure]]:
    if not tracks or not figures:
        return []
    from scipy.optimize import linear_sum_assignment

    costs = np.array([[track.cost(figure, number) for figure in figures] for track in tracks])
    rows, columns = linear_sum_assignment(costs)
    return [(tracks[r], figures[c]) for r, c in zip(rows, columns, strict=True) if costs[r, c] < _NEVER]


def _box(points: Array) -> Array:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _overlap(one: Array, other: Array) -> float:
    """Intersection over union of two boxes [4]."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    total = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / total if total > 0 else 0.0
