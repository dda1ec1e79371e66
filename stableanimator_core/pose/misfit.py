"""How well an aligned clip fits its reference person: one number, a verdict, and words about what is off.

Lengths are shares of the reference person's body height. Proportions follow Drillis and Contini (1966) where
a body is only partly in the picture. Axes: f frames, n joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .affine import observe, weighted_median
from .limbs import bone_lengths
from .people import Array, Frame, Person

FITS, DOUBTFUL = 0.06, 0.15
"""Up to the first a fit is OK if nothing else is notable, up to the second to be checked, above it bad."""

TRUNK_AND_HEAD = (0, 1, 2, 5, 8, 11, 14, 15, 16, 17)
_GROUPS = {
    "arms": ("upper arms", "forearms"),
    "legs": ("thighs", "shins"),
    "trunk": ("trunk",),
    "shoulders": ("shoulders",),
}
_SHARE_OF_HEIGHT = {"trunk": 0.30, "shoulders": 0.129, "thighs": 0.245, "shins": 0.246, "upper arms": 0.186}
_NOTABLE = 0.12  # relative change of a length that is worth a word


@dataclass(frozen=True, eq=False)
class Misfit:
    """The judgement.

    Attributes:
        share: distance from the reference as a share of body height; NaN if nothing could be compared.
        level: "FIT OK", "CHECK" or "BAD"; "NOT JUDGED" where there is nobody to compare.
        words: what is off, worst first; empty if nothing is.
        per_frame: [f] mean distance of trunk and head joints in each frame, NaN where nobody was found.
    """

    share: float
    level: str
    words: list[str] = field(default_factory=list)
    per_frame: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def text(self) -> str:
        """For example "CHECK: arms 18 % too long"."""
        return f"{self.level}: {'; '.join(self.words)}" if self.words else self.level


def judge(frames: Sequence[Frame], judged: Sequence[tuple[int, Person]], reference: Frame) -> Misfit:
    """Compare an aligned clip with the reference.

    A driving person moves, so placement is judged by the quarter of the frames that lie closest.

    Args:
        frames: the aligned clip, all frames.
        judged: frame number and aligned person of the frames that count.
        reference: its first person is the measure.
    """
    person, size = reference.people[0], reference.size
    height = body_height(person, size)
    per_frame = np.array([_distance(frame, person, size) / height for frame in frames])
    near = _nearest_quarter([one for _, one in judged], person, size)
    apart = [_person_distance(one, person, size) for one in near]
    placement = np.mean(apart) / height if near else float("nan")
    worst, words = _length_words([one for _, one in judged], person, size, height)
    words = [*_size_and_place_words(near, person, size, height), *words]
    share = max(float(placement), worst) if near else float("nan")
    level = "BAD" if not share <= DOUBTFUL else "CHECK" if words or share > FITS else "FIT OK"
    if level != "FIT OK" and not words:
        words = [f"joints lie {_percent(share)} of the body height apart"]
    return Misfit(share, level, words, per_frame)


def unjudged(num_frames: int) -> Misfit:
    """For a clip or a reference without a person."""
    words = ["nobody in the clip or in the reference"]
    return Misfit(float("nan"), "NOT JUDGED", words, np.full(num_frames, np.nan))


def body_height(person: Person, size: Array) -> float:
    """Standing height in pixels of the canvas `size` [2], estimated from what is seen; at least 1."""
    lengths = bone_lengths([person], size)
    estimates = [lengths[name] / share for name, share in _SHARE_OF_HEIGHT.items() if name in lengths]
    seen = person.body[person.visible] * size
    extent = float(np.ptp(seen[:, 1])) if len(seen) > 1 else 1.0
    return max(extent, float(np.median(estimates)) if estimates else 0.0, 1.0)


def _distance(frame: Frame, reference: Person, size: Array) -> float:
    distances = [_person_distance(person, reference, size) for person in frame.people]
    known = [distance for distance in distances if not np.isnan(distance)]
    return min(known, default=float("nan"))


def _person_distance(person: Person, reference: Person, size: Array) -> float:
    """Weighted mean distance of trunk and head joints, pixels; NaN without a common joint."""
    joints = list(TRUNK_AND_HEAD)
    weight = np.minimum(person.body_score, reference.body_score)[joints]
    weight = weight * (person.visible & reference.visible)[joints]
    if not weight.any():
        return float("nan")
    distance = np.linalg.norm((person.body - reference.body)[joints] * size, axis=-1)
    return float(distance @ weight / weight.sum())


def _nearest_quarter(people: list[Person], reference: Person, size: Array) -> list[Person]:
    ranked = [(_person_distance(one, reference, size), number) for number, one in enumerate(people)]
    ranked = sorted(entry for entry in ranked if not np.isnan(entry[0]))
    return [people[number] for _, number in ranked[: max(1, len(ranked) // 4)]]


def _length_words(
    people: list[Person], reference: Person, size: Array, height: float
) -> tuple[float, list[str]]:
    """The largest difference of a limb's length as a share of height, and words for those worth it."""
    ours, wanted = bone_lengths(people, size), bone_lengths([reference], size)
    changes, shares = {}, {}
    for group, names in _GROUPS.items():
        common = [name for name in names if name in ours and name in wanted]
        if common:
            length, target = sum(ours[name] for name in common), sum(wanted[name] for name in common)
            changes[group] = length / max(target, 1e-6) - 1
            shares[group] = abs(length - target) / height
    worst = max(shares.values(), default=0.0)
    sizes = list(changes.values())
    if len(sizes) > 2 and (min(sizes) > _NOTABLE or max(sizes) < -_NOTABLE):  # all of it, not one limb
        amount = float(np.median(sizes))
        return worst, [f"figure {_percent(amount)} too {'large' if amount > 0 else 'small'}"]
    notable = [group for group in changes if abs(changes[group]) > _NOTABLE and shares[group] > FITS / 2]
    notable.sort(key=lambda group: -shares[group])
    return worst, [
        f"{group} {_percent(changes[group])} too {'long' if changes[group] > 0 else 'short'}"
        for group in notable
    ]


def _percent(share: float) -> str:
    return f"{abs(share) * 100:.0f} %"


def _size_and_place_words(near: list[Person], reference: Person, size: Array, height: float) -> list[str]:
    if not near:
        return ["no frame shows joints that the reference shows"]
    seen = observe(near, size, reference, size)
    words = []
    known = seen.weight > 0
    apart = (seen.driven - seen.reference)[known] / height  # [observations 2]
    shift = [weighted_median(apart[:, axis], seen.weight[known]) for axis in (0, 1)]
    for amount, names in zip(shift, (("left", "right"), ("high", "low")), strict=True):
        if abs(amount) > FITS:
            words.append(
                f"{abs(amount):.0%} of the body height too far {names[amount > 0]}".replace("%", " %")
            )
    if _faces(near[0]) * _faces(reference) < 0:
        words.append("left and right are swapped: one is seen from the side or from behind, or mirrored")
    return words


def _faces(person: Person) -> float:
    """1 if the left shoulder is on the picture's right (seen from the front), -1 if not, 0 if unclear."""
    if not (person.visible[2] and person.visible[5] and person.visible[1]):
        return 0.0
    return float(np.sign(person.body[5, 0] - person.body[2, 0]))
