"""Repairing detected motion: gaps filled, jitter smoothed, doubtful frames named. All of it is off by
default.

The filter fits a parabola around each frame by weighted least squares (Savitzky and Golay 1964, with a
Gaussian window and the scores as weights): steady and evenly accelerated motion passes unchanged, doubtful
points follow sure ones. Axes: f frames of one person's track, n points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .people import PART_SIZES, VISIBLE, Array, Clip, Frame, Mask, Person
from .select import Track, track_people

_KIND = {"body": "body", "left_hand": "hands", "right_hand": "hands", "face": "face", "pupils": "face"}
_ANCHOR = {"left_hand": 7, "right_hand": 4, "face": 0, "pupils": 0}  # body joint a part hangs on
_WINDOW = 3.0  # the filter's half width, standard deviations


@dataclass(frozen=True)
class SmoothOptions:
    """What is repaired.

    Attributes:
        fill_gaps: points missing in up to so many frames in a row are interpolated; 0 fills none.
        body: width of the filter (standard deviation) in frames; 0 leaves the body as it is.
        hands: likewise.
        face: likewise.
        min_score: below it a point counts as missing for `fill_gaps`, and a body as doubtful.
    """

    fill_gaps: int = 0
    body: float = 0.0
    hands: float = 0.0
    face: float = 0.0
    min_score: float = VISIBLE

    def __post_init__(self) -> None:
        for name in ("body", "hands", "face"):
            if not 0 <= getattr(self, name) <= 100:
                raise InputError(
                    f"smoothing of {name}", f"is {getattr(self, name)}", "use 0 (off) to 100 frames"
                )
        if not 0 <= self.fill_gaps <= 1000:
            raise InputError("gaps to fill", f"is {self.fill_gaps}", "use 0 (off) to 1000 frames")


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired clip.

    Attributes:
        frames: as many as before.
        filled: numbers of the frames in which at least one point was interpolated.
        doubtful: numbers of the frames that still show nobody, or whose bodies are mostly unsure.
    """

    frames: Clip
    filled: list[int]
    doubtful: list[int]


def repair(frames: Sequence[Frame], options: SmoothOptions | None = None) -> Repaired:
    """Fill gaps, then smooth, each person along their own track."""
    options = options or SmoothOptions()
    people = [list(frame.people) for frame in frames]
    filled: set[int] = set()
    if options.fill_gaps or options.body or options.hands or options.face:
        for track in track_people(frames):
            filled |= _repair_track(people, track, options)
    result = [Frame(tuple(found), f.width, f.height) for found, f in zip(people, frames, strict=True)]
    return Repaired(result, sorted(filled), low_confidence_frames(result, options.min_score))


def low_confidence_frames(frames: Sequence[Frame], min_score: float = VISIBLE) -> list[int]:
    """Numbers of the frames with nobody, or where the surest body's median score is under `min_score`."""
    surest = [max((float(np.median(p.body_score)) for p in frame.people), default=-1.0) for frame in frames]
    return [number for number, score in enumerate(surest) if score < min_score]


def smoothed(points: Array, scores: Array, width: float) -> Array:
    """Points [f n 2] filtered along f; absent ones (score 0 or less) neither count nor move.

    Args:
        points: places, any unit.
        scores: [f n]; they weigh the points, more than 1 counts as 1.
        width: standard deviation of the window, frames.
    """
    from scipy.ndimage import correlate1d

    reach = max(1, math.ceil(_WINDOW * width))
    time = np.arange(-reach, reach + 1) / width
    window = np.exp(-0.5 * time**2)
    weight = np.clip(scores, 0, 1)

    def moment(values: Array, power: int) -> Array:
        return correlate1d(values, window * time**power, axis=0, mode="constant")

    sums = [moment(weight, power) for power in range(5)]  # each [f n]
    normal = np.stack([np.stack(sums[row : row + 3], axis=-1) for row in range(3)], axis=-2)  # [f n 3 3]
    normal = normal + 1e-9 * (sums[0][..., None, None] + 1e-30) * np.eye(3)  # two points have no parabola
    weighted = weight[..., None] * points
    right = np.stack([moment(weighted, power) for power in range(3)], axis=-2)  # [f n 3 2]
    known = weight > 0
    result = points.copy()
    result[known] = np.linalg.solve(normal[known], right[known])[:, 0]
    return result


def _repair_track(people: list[list[Person]], track: Track, options: SmoothOptions) -> set[int]:
    """Repair one person in place; numbers of the frames where something was filled."""
    numbers = range(min(track), max(track) + 1)
    persons = [people[n][track[n]] if n in track else Person() for n in numbers]
    parts = {name: _stacked(persons, name) for name in PART_SIZES}
    changed = np.zeros(len(numbers), dtype=bool)
    for name, (points, scores) in parts.items():  # the body first: the other parts hang on it
        if options.fill_gaps:
            anchor = parts["body"][0][:, _ANCHOR[name], None] if name in _ANCHOR else np.zeros((1, 1, 2))
            points, scores, holes = _filled(points, scores, anchor, options)
            changed |= holes.any(axis=1)
            parts[name] = points, scores
    for name, (points, scores) in parts.items():
        width = getattr(options, _KIND[name])
        if width and scores.any():
            parts[name] = smoothed(points, scores, width), scores
    for row, number in enumerate(numbers):
        repaired = Person()
        for name, (points, scores) in parts.items():
            repaired = repaired.with_part(name, points[row], scores[row])
        if number in track:
            people[number][track[number]] = repaired
        elif changed[row]:
            people[number].append(repaired)
    return {numbers[row] for row in np.flatnonzero(changed)}


def _stacked(persons: list[Person], name: str) -> tuple[Array, Array]:
    """Points [f n 2] and scores [f n] of one part."""
    pairs = [person.part(name) for person in persons]
    return np.stack([points for points, _ in pairs]), np.stack([scores for _, scores in pairs])


def _filled(points: Array, scores: Array, anchor: Array, options: SmoothOptions) -> tuple[Array, Array, Mask]:
    """Short gaps interpolated relative to `anchor` [f 1 2]; also which points [f n] were filled."""
    points, scores = points.copy(), scores.copy()
    local = points - anchor
    holes = np.zeros(scores.shape, dtype=bool)
    for point in range(scores.shape[1]):
        good = np.flatnonzero(scores[:, point] >= options.min_score)
        steps = np.diff(good)
        for row in np.flatnonzero((steps > 1) & (steps <= options.fill_gaps + 1)):
            holes[good[row] + 1 : good[row + 1], point] = True
        gaps = np.flatnonzero(holes[:, point])
        if len(gaps):
            for axis in (0, 1):
                local[gaps, point, axis] = np.interp(gaps, good, local[good, point, axis])
            scores[gaps, point] = np.interp(gaps, good, scores[good, point])
    points = np.where(holes[..., None], local + anchor, points)
    return points, scores, holes
