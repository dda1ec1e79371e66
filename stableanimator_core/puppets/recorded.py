"""Real motion for puppets: the flat key points of a person, lifted into directions in space.

A limb that looks shorter than it once was points towards the viewer or away; which of the two is not known, and
taken as towards the viewer for arms, and for thighs and away for shins, as knees bend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pose.people import JOINT, Frame, Person
from .motion import Pose, unit

Array = NDArray[np.float64]

_CHAINS = (
    *(("r_shoulder", "r_elbow"), ("r_elbow", "r_wrist"), ("r_hip", "r_knee"), ("r_knee", "r_ankle")),
    *(("l_shoulder", "l_elbow"), ("l_elbow", "l_wrist"), ("l_hip", "l_knee"), ("l_knee", "l_ankle")),
)
_TOWARDS = np.array([1, 1, 1, -1] * 2)
_OUTWARD = np.array([-1.0] * 4 + [1.0] * 4)
TRAVEL = 0.25
"""Share of the way walked sideways that a puppet walks, so that it stays in the picture."""
_TORSO = 1.47  # heads, of a puppet of middling build


def lift(frames: Sequence[Frame]) -> list[Pose]:
    """Poses of the first person of every frame; a frame without one, or without a joint, is bridged in time.

    Raises:
        InputError: no frame shows a person with a neck.
    """
    joints = np.stack([_joints(frame) for frame in frames]) if frames else np.empty((0, 18, 2))
    if not np.isfinite(joints[:, JOINT["neck"]]).any():
        raise InputError("recorded motion", "shows nobody", "give frames that show a person from the neck on")
    joints = _filled(joints)
    limbs = np.stack([joints[:, JOINT[b]] - joints[:, JOINT[a]] for a, b in _CHAINS], axis=1)
    lengths = np.linalg.norm(limbs, axis=-1)
    whole = np.percentile(lengths, 95, axis=0)
    towards = _TOWARDS * np.sqrt(np.clip(1 - (lengths / whole) ** 2, 0, 1)) * whole
    directions = unit(np.concatenate([limbs, towards[..., None]], axis=-1) + 1e-9)
    shoulders, hips = (_middle(joints, part) for part in ("shoulder", "hip"))
    scale = np.median(np.linalg.norm(hips - shoulders, axis=-1)) / _TORSO
    shift = (hips - np.median(hips, axis=0)) / scale * [TRAVEL, 1.0]
    spine = hips - shoulders
    roll = np.arctan2(-spine[:, 0], spine[:, 1])
    yaw = _body_yaw(joints)
    head = _head_angles(joints, scale)
    poses = []
    for i in range(len(frames)):
        body = np.array([yaw[i], 0.0, roll[i]])
        poses.append(Pose(_own(directions[i], body), body, head[i], shift[i], 0.0, 0.0))
    return poses


def _own(directions: Array, body: Array) -> Array:
    """Directions of the picture as outward, down and forward of the body."""
    from .body import rotation

    return (directions @ rotation(*body)) * np.stack([_OUTWARD, np.ones(8), np.ones(8)], axis=1)


def _joints(frame: Frame) -> Array:
    """[18 2] in pixels, NaN where nothing was seen."""
    person = frame.people[0] if frame.people else Person()
    return np.where(person.visible[:, None], person.body * frame.size, np.nan)


def _filled(joints: Array) -> Array:
    """Gaps bridged in time; a joint that is never seen stands at the neck."""
    times = np.arange(len(joints))
    for joint in sorted(range(joints.shape[1]), key=lambda joint: joint != JOINT["neck"]):
        for axis in range(2):
            row = joints[:, joint, axis]
            seen = np.isfinite(row)
            source = row[seen] if seen.any() else joints[:, JOINT["neck"], axis]
            joints[:, joint, axis] = np.interp(times, times[seen] if seen.any() else times, source)
    return joints


def _middle(joints: Array, part: str) -> Array:
    return (joints[:, JOINT[f"r_{part}"]] + joints[:, JOINT[f"l_{part}"]]) / 2


def _body_yaw(joints: Array) -> Array:
    """Turn of the shoulders, from how narrow they look; towards the side the nose lies on."""
    shoulders = joints[:, JOINT["l_shoulder"]] - joints[:, JOINT["r_shoulder"]]
    width = shoulders[:, 0]
    raised = 0.7  # lifted arms draw the shoulders together this far without any turn
    turn = np.arccos(np.clip(np.abs(width) / np.percentile(np.abs(width), 95) / raised, 0.35, 1))
    side = np.sign(joints[:, JOINT["nose"], 0] - joints[:, JOINT["neck"], 0])
    return np.clip(turn, 0, 1.2) * side


def _head_angles(joints: Array, scale: float) -> Array:
    """[f 3] yaw from where the nose lies between the ears, roll from the eyes, no pitch."""
    nose, ears = joints[:, JOINT["nose"]], _middle(joints, "ear")
    yaw = np.arcsin(np.clip((nose - ears)[:, 0] / (0.5 * scale), -0.8, 0.8))
    eyes = joints[:, JOINT["l_eye"]] - joints[:, JOINT["r_eye"]]
    roll = np.where(np.abs(yaw) < 0.7, np.arctan2(eyes[:, 1], np.abs(eyes[:, 0]) + 1e-6), 0.0)
    return np.stack([yaw, np.zeros_like(yaw), np.clip(roll, -0.4, 0.4)], axis=1)
