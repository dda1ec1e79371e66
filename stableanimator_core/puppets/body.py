"""From a pose and a build to joints in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .look import Person
from .motion import Pose

Array = NDArray[np.float64]

NECK = 0.70
"""From the line of the shoulders to the middle of the head."""


@dataclass(frozen=True, eq=False)
class Body:
    """A puppet in space, in heads; the pelvis of the resting pose is the origin.

    Attributes:
        pelvis, neck, head: [3]; neck is the middle of the shoulders, head the middle of the head.
        arms: [2 3 3] shoulder, elbow, wrist; the right one first.
        legs: [2 3 3] hip, knee, ankle.
        turn: [3 3] axes of the torso (to its left, down, forward) as columns.
        head_turn: [3 3] likewise of the head.
    """

    pelvis: Array
    neck: Array
    head: Array
    arms: Array
    legs: Array
    turn: Array
    head_turn: Array


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """[3 3] of angles in radians: yaw turns to the picture's right, pitch looks down, roll tilts in the picture."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def place(person: Person, pose: Pose) -> Body:
    """The joints of `person` in `pose`."""
    turn = rotation(*pose.body)
    pelvis = np.array([*pose.shift, 0.0])
    neck = pelvis - turn[:, 1] * person.torso
    head_turn = rotation(*pose.head)
    head = neck - (0.6 * turn[:, 1] + 0.4 * head_turn[:, 1]) * NECK + head_turn[:, 2] * 0.06
    arms, legs = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    for side, outward in enumerate((-1.0, 1.0)):
        directions = (pose.limbs[4 * side : 4 * side + 4] * [outward, 1, 1]) @ turn.T
        arms[side, 0] = neck + turn[:, 0] * outward * person.shoulders + turn[:, 1] * 0.06
        legs[side, 0] = pelvis + turn[:, 0] * outward * person.hips
        for limb, directions_of, length in (
            (arms, directions[:2], person.arm),
            (legs, directions[2:], person.leg),
        ):
            limb[side, 1] = limb[side, 0] + directions_of[0] * length
            limb[side, 2] = limb[side, 1] + directions_of[1] * length * 0.95
    return Body(pelvis, neck, head, arms, legs, turn, head_turn)
