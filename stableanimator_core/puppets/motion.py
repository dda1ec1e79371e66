"""How a puppet moves: generated motions, made of key poses that flow into each other.

A pose says directions, not places, so that every build can take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

# Directions (outward, down, forward) of the upper arm and of the forearm.
_ARMS = {
    "down": ((0.25, 1, 0), (0.1, 1, 0.2)),
    "out": ((1, 0.1, 0), (1, 0, 0.1)),
    "up": ((0.55, -1, 0), (0.1, -1, 0)),
    "v": ((1, -0.9, 0), (0.7, -1, 0)),
    "hip": ((0.8, 0.8, -0.2), (-0.9, 0.6, 0.4)),
    "wave": ((0.9, 0.35, 0.1), (0.35, -1, 0.2)),
    "flex": ((1, 0.0, 0), (-0.1, -1, 0.1)),
    "cross": ((0.2, 0.8, 0.5), (-1, -0.05, 0.5)),
    "chest": ((0.45, 0.8, 0.4), (-0.7, -0.5, 0.6)),
    "head": ((0.9, -0.3, 0.2), (-0.6, -0.8, 0.2)),
    "ahead": ((0.25, 0.35, 1), (0.05, 0.05, 1)),
    "push": ((0.4, 0.7, 0.5), (0.1, -0.3, 1)),
    "back": ((0.3, 1, -0.5), (0.2, 1, -0.2)),
}
# Directions of the thigh and of the shin.
_LEGS = {
    "stand": ((0.08, 1, 0), (0.0, 1, 0)),
    "wide": ((0.45, 1, 0), (0.3, 1, 0)),
    "bend": ((0.3, 1, 0.5), (0.0, 1, -0.45)),
    "lift": ((0.15, 0.35, 0.9), (0.0, 1, -0.1)),
    "step": ((0.1, 1, 0.4), (0.05, 1, 0.1)),
    "behind": ((0.1, 1, -0.35), (0.05, 0.9, -0.5)),
    "kick": ((0.9, 0.7, 0.2), (0.9, 0.8, 0.1)),
}
KEY_FRAMES = (5, 12)
"""Fewest and most frames from one key pose to the next."""


@dataclass(frozen=True, eq=False)
class Pose:
    """One moment of a body, without its build.

    Attributes:
        limbs: [8 3] unit directions: upper arm, forearm, thigh and shin of the right side, then of the left;
            outward, down and forward as the body sees them.
        body: [3] yaw, pitch and roll of the torso, radians.
        head: [3] yaw, pitch and roll of the head against the viewer, radians.
        shift: [2] where the pelvis is, heads to the right and down.
        mouth: 0 closed to 1 open; `blink`: above 0.5 the eyes are shut.
    """

    limbs: Array
    body: Array
    head: Array
    shift: Array
    mouth: float
    blink: float


def generate(rng: np.random.Generator, num_frames: int, energy: float | None = None) -> list[Pose]:
    """A motion of `num_frames`; `energy` from 0 (hardly moving) to 1 (a wild dance)."""
    energy = float(rng.uniform(0.25, 1)) if energy is None else energy
    times = [0.0]
    while times[-1] < num_frames + KEY_FRAMES[1]:
        times.append(times[-1] + rng.uniform(*KEY_FRAMES))
    keys = _key_poses(rng, len(times), energy)
    moments = rng.uniform(0, KEY_FRAMES[0]) + np.arange(num_frames)
    values = np.stack([np.interp(_eased(moments, times), range(len(times)), row) for row in keys.T], axis=1)
    blinks = rng.uniform(size=num_frames) < 0.04
    return [_pose(row, float(shut)) for row, shut in zip(values, blinks, strict=True)]


def unit(vectors: Array) -> Array:
    """Vectors [... 3] of length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _key_poses(rng: np.random.Generator, count: int, energy: float) -> Array:
    """[count 33] limbs, body, head, shift and mouth of every key."""
    rest = unit(np.array([*_ARMS["down"], *_LEGS["stand"]] * 2))
    mirrored, facing = rng.uniform() < 0.4, rng.normal(0, 0.3)
    turn = np.where(rng.uniform() < 0.5, 0.2, 0.55)
    rows = []
    for _ in range(count):
        right = _limbs(rng)
        left = right if mirrored else _limbs(rng)
        wild = unit(np.concatenate([right, left]) + rng.normal(0, 0.15, (8, 3)))
        limbs = rest + min(1.0, energy * rng.uniform(0.5, 1.6)) * (wild - rest)
        yaw = float(np.clip(facing + rng.normal(0, turn * energy), -1.0, 1.0))
        body = np.array([yaw, rng.normal(0, 0.08), rng.normal(0, 0.12 * energy)])
        head = np.array([yaw * 0.6 + rng.normal(0, 0.35), rng.normal(0.0, 0.12), rng.normal(0, 0.12)])
        head = np.clip(head, [-0.95, -0.3, -0.35], [0.95, 0.3, 0.35])
        shift = np.array([rng.normal(0, 0.25 * energy), rng.uniform(-0.05, 0.2) * energy])
        rows.append(np.concatenate([limbs.ravel(), body, head, shift, [max(0.0, rng.normal(0.1, 0.5))]]))
    return np.array(rows)


def _limbs(rng: np.random.Generator) -> Array:
    arm = _ARMS[list(_ARMS)[rng.integers(len(_ARMS))]]
    leg = _LEGS[list(_LEGS)[rng.integers(len(_LEGS))] if rng.uniform() < 0.7 else "stand"]
    return unit(np.array([*arm, *leg], dtype=np.float64))


def _eased(moments: Array, times: list[float]) -> Array:
    """Moments as places among the keys, slow near each of them."""
    place = np.interp(moments, times, np.arange(len(times)))
    part = place - np.floor(place)
    return np.floor(place) + part * part * (3 - 2 * part)


def _pose(row: Array, blink: float) -> Pose:
    limbs = unit(row[:24].reshape(8, 3) + 1e-9)
    return Pose(limbs, row[24:27], row[27:30], row[30:32], float(np.clip(row[32], 0, 1)), blink)
