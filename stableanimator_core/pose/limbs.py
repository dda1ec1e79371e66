"""Limb lengths: measured over a clip, and carried over to another body without stretching it out of shape.

Walk the skeleton from the neck outwards and give each bone the reference's length in the driving direction.
Ratios are the same for left and right, bounded, and 1 where a bone is not clearly seen. Axes: f frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .people import VISIBLE, Array, Person

BONES: dict[str, tuple[tuple[int, int], ...]] = {
    "shoulders": ((1, 2), (1, 5)),
    "upper arms": ((2, 3), (5, 6)),
    "forearms": ((3, 4), (6, 7)),
    "trunk": ((1, 8), (1, 11)),
    "thighs": ((8, 9), (11, 12)),
    "shins": ((9, 10), (12, 13)),
    "neck": ((1, 0),),
    "head": ((0, 14), (0, 15), (14, 16), (15, 17)),
}
"""Left and right bones that share a ratio, parent joint first, inner bones before outer ones."""

OPEN_LENGTH = 80
"""Percentile of a bone's lengths over the clip that counts as its own: foreshortening only ever shortens."""

_FADE = 0.2  # scores from VISIBLE - 0.2 to VISIBLE blend a ratio in, so that a flickering joint does not jump


def bone_lengths(people: Sequence[Person], size: Array) -> dict[str, float]:
    """Length of each group of `BONES` in pixels of the canvas `size` [2], mean of both sides, if seen."""
    body = np.stack([person.body for person in people]) * size  # [f 18 2]
    seen = np.stack([person.visible for person in people])  # [f 18]
    lengths = {}
    for name, bones in BONES.items():
        sides = []
        for parent, child in bones:
            both = seen[:, parent] & seen[:, child]
            if both.any():
                found = np.linalg.norm(body[both, child] - body[both, parent], axis=-1)
                sides.append(float(np.percentile(found, OPEN_LENGTH)))
        if sides:
            lengths[name] = float(np.mean(sides))
    return lengths


def limb_ratios(
    driven: Mapping[str, float], reference: Mapping[str, float], cap: float
) -> tuple[dict[str, float], list[str]]:
    """Reference length over driving length of each bone group, within 1/cap..cap, and what a person should
    know.

    Args:
        driven: lengths after the whole figure was fitted, in reference pixels.
        reference: lengths of the reference person.
        cap: 1 or more.
    """
    ratios, messages = {}, []
    for name in BONES:
        if min(driven.get(name, 0.0), reference.get(name, 0.0)) <= 1e-6:
            ratios[name] = 1.0
            messages.append(f"{name}: not seen clearly in both, length kept")
            continue
        wanted = reference[name] / driven[name]
        ratios[name] = float(np.clip(wanted, 1 / cap, cap))
        if ratios[name] != wanted:
            messages.append(f"{name}: would change to {wanted:.0%}, held at {ratios[name]:.0%}")
    return ratios, messages


def retarget(person: Person, size: Array, ratios: Mapping[str, float]) -> Person:
    """`person` with every bone scaled by its group's ratio, from the neck outwards; hands and face go along.

    Args:
        person: points as fractions of a canvas.
        size: [2] of that canvas, pixels.
        ratios: group of `BONES` -> ratio.
    """
    body = person.body * size
    trust = np.clip((person.body_score - (VISIBLE - _FADE)) / _FADE, 0, 1)
    shift = np.zeros((18, 2))
    for name, bones in BONES.items():
        for parent, child in bones:
            shift[child] = _grown(shift, body, trust, parent, child, ratios[name])
    followed = {
        "left_hand": (7, "forearms"),
        "right_hand": (4, "forearms"),
        "face": (0, "head"),
        "pupils": (0, "head"),
    }

    def move(part: str, points: Array) -> Array:
        if part == "body":
            return points + shift / size
        joint, group = followed[part]
        ratio = 1 + (ratios[group] - 1) * trust[joint]
        centre = person.body[joint] if trust[joint] > 0 else 0.0
        return centre + (points - centre) * ratio + shift[joint] / size

    return person.moved_by_part(move)


def _grown(shift: Array, body: Array, trust: Array, parent: int, child: int, ratio: float) -> Array:
    known = min(trust[parent], trust[child])
    return shift[parent] + known * (ratio - 1) * (body[child] - body[parent])
