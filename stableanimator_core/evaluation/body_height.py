"""How tall a person is in pixels, from the skeleton: the unit of the pose error.

The camera sees by parallel rays, so no limb can look longer than it is: pixels over own length is at most the scale,
and reaches it in the frame in which some limb lies in the picture plane. The largest such ratio over all limbs and
frames is therefore the scale, pixels per head; the person's own proportions give the standing height in heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import NoPersonError
from ..pose.people import JOINT, Frame
from ..puppets.body import NECK
from ..puppets.figure import FOOT
from ..puppets.look import Person

_HALF_HEAD = 0.5
_LOWER = 0.95
"""A forearm or shin is this share of the upper arm or thigh."""


def height_in_heads(person: Person) -> float:
    """Crown to sole, standing."""
    return _HALF_HEAD + NECK + person.torso + person.leg * (1 + _LOWER) + FOOT


def limb_lengths(person: Person) -> dict[tuple[str, str], float]:
    """Length in heads of what lies between two joints."""
    lengths = {("r_shoulder", "l_shoulder"): 2 * person.shoulders, ("r_hip", "l_hip"): 2 * person.hips}
    for side in "rl":
        lengths[f"{side}_shoulder", f"{side}_elbow"] = person.arm
        lengths[f"{side}_elbow", f"{side}_wrist"] = person.arm * _LOWER
        lengths[f"{side}_hip", f"{side}_knee"] = person.leg
        lengths[f"{side}_knee", f"{side}_ankle"] = person.leg * _LOWER
    return lengths


def body_height(person: Person, frames: Sequence[Frame]) -> float:
    """Standing height of `person` in pixels, from the skeletons of a clip.

    Raises:
        NoPersonError: no limb is whole within any frame.
    """
    ratios = [ratio for frame in frames for ratio in _ratios(person, frame)]
    if not ratios:
        raise NoPersonError("the skeletons", "show no whole limb", "use a clip in which somebody is seen")
    return max(ratios) * height_in_heads(person)


def _ratios(person: Person, frame: Frame) -> list[float]:
    """Pixels per head of every limb with both ends in the picture."""
    seen = frame.people[0].body_score > 0
    places = frame.people[0].body * frame.size
    return [
        float(np.linalg.norm(places[JOINT[a]] - places[JOINT[b]])) / length
        for (a, b), length in limb_lengths(person).items()
        if seen[JOINT[a]] and seen[JOINT[b]]
    ]
