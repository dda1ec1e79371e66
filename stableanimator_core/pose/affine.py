"""How a driving clip is laid over the reference person: one affine map, found in one of several ways.

Official: StableAnimator, `DWPose/skeleton_extraction.py::get_video_pose` @ 020e7f2. Similarity: Umeyama,
"Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, with weights.
Maps take fractions of the driving canvas to fractions of the reference canvas; all but the official one are
found in pixels, where a figure keeps its shape whatever the two canvases' aspects. Axes: f frames, n joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .people import Array, Mask, Person

FIT_JOINTS = (0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
"""Joints the official fit uses: all but elbows and wrists, which move most."""


@dataclass(frozen=True, eq=False)
class Affine:
    """points [n 2] -> points @ linear.T + offset, with linear [2 2] and offset [2]."""

    linear: Array
    offset: Array

    def __call__(self, points: Array) -> Array:
        if self.linear[0, 1] == 0 and self.linear[1, 0] == 0:
            return points * np.diag(self.linear) + self.offset  # exactly the official order of operations
        return points @ self.linear.T + self.offset

    def shifted(self, shift: Array) -> Affine:
        return Affine(self.linear, self.offset + shift)


@dataclass(frozen=True, eq=False)
class Observations:
    """Joints of the driving person in the frames of the fit, and of the reference person, in pixels.

    Attributes:
        driven: [f n 2].
        driven_weight: [f n] scores, 0 where a joint is not seen.
        reference: [n 2].
        reference_weight: [n] likewise.
    """

    driven: Array
    driven_weight: Array
    reference: Array
    reference_weight: Array

    @property
    def weight(self) -> Array:
        """[f n] confidence that a joint is known in both."""
        return np.minimum(self.driven_weight, self.reference_weight)


def observe(people: Sequence[Person], size: Array, reference: Person, reference_size: Array) -> Observations:
    """The fit's joints of `people` and `reference`, whose points are fractions of the two sizes [2]."""
    joints = list(FIT_JOINTS)
    driven = np.stack([person.body[joints] for person in people]) * size
    scores = np.stack([person.body_score[joints] * person.visible[joints] for person in people])
    seen = reference.body_score[joints] * reference.visible[joints]
    return Observations(
        driven, np.minimum(scores, 1), reference.body[joints] * reference_size, np.minimum(seen, 1)
    )


def to_fractions(linear: Array, offset: Array, size: Array, reference_size: Array) -> Affine:
    """A map between pixels as a map between fractions of the two canvases."""
    return Affine(linear * size / reference_size[:, None], offset / reference_size)


def placed(size: Array, reference_size: Array) -> Affine:
    """The driving canvas whole and centred in the reference canvas; the identity for equal aspects."""
    if size[0] * reference_size[1] == size[1] * reference_size[0]:
        return Affine(np.eye(2), np.zeros(2))
    scale = float((reference_size / size).min())
    return to_fractions(scale * np.eye(2), (reference_size - scale * size) / 2, size, reference_size)


def official_fit(driven: Array, known: Mask, reference: Array) -> Affine:
    """A least-squares line from the driving joints' y to the reference's; x has the same scale and the mean
    offset.

    Args:
        driven: [f n 2] joints that the reference shows, fractions.
        known: [f n] False where a driving joint is absent; doubtful ones count in full.
        reference: [n 2] fractions.
    """
    matched = np.broadcast_to(reference, driven.shape)[known]  # [observations 2]
    observed = driven[known]
    _check_spread(np.ptp(observed[:, 1]))
    scale, offset_y = np.polyfit(observed[:, 1], matched[:, 1], 1)
    offset_x = np.mean(matched[:, 0] - observed[:, 0] * scale)
    return Affine(scale * np.eye(2), np.array([offset_x, offset_y]))


def robust_fit(seen: Observations) -> tuple[Array, Array]:
    """One scale and a shift that nearly half of the joints may be wrong about. Pixels: linear, offset.

    Scale: repeated medians (Siegel 1982): for each joint the median ratio of its distances to the others,
    over all frames, then the median over the joints. Shift: the median of what remains.
    """
    joints, weights = [], []
    for joint in range(len(seen.reference)):
        wanted = np.linalg.norm(seen.reference - seen.reference[joint], axis=-1)  # [n]
        found = np.linalg.norm(seen.driven - seen.driven[:, joint, None], axis=-1)  # [f n]
        weight = np.minimum(seen.weight, seen.weight[:, joint, None]) * wanted
        usable = (weight > 0) & (found > 1e-9)
        if usable.any():
            ratios = np.broadcast_to(wanted, found.shape)[usable] / found[usable]
            joints.append(weighted_median(ratios, weight[usable]))
            weights.append(seen.weight[:, joint].sum())
    _check_spread(len(joints))
    scale = weighted_median(np.array(joints), np.array(weights))
    rest = seen.reference - scale * seen.driven  # [f n 2]
    known = seen.weight > 0
    offset = [weighted_median(rest[..., axis][known], seen.weight[known]) for axis in (0, 1)]
    return scale * np.eye(2), np.array(offset)


def similarity_fit(seen: Observations) -> tuple[Array, Array]:
    """Rotation, scale, shift by weighted least squares on the mean driving pose. Pixels: linear, offset."""
    total = seen.weight.sum(axis=0)  # [n]
    known = total > 0
    driven = (seen.driven * seen.weight[..., None]).sum(axis=0)[known] / total[known, None]
    reference, weight = seen.reference[known], total[known] / total.sum()
    driven_mean, reference_mean = weight @ driven, weight @ reference
    spread = (weight[:, None] * (driven - driven_mean)).T  # [2 n]
    covariance = spread @ (reference - reference_mean)  # [2 2]
    u, singular, vt = np.linalg.svd(covariance.T)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])  # a mirror image is no rotation
    rotation = u @ np.diag(signs) @ vt
    variance = float((weight[:, None] * (driven - driven_mean) ** 2).sum())
    _check_spread(variance)
    linear = rotation * float(singular @ signs) / variance
    return linear, reference_mean - linear @ driven_mean


def _check_spread(spread: float) -> None:
    if not spread > 1e-9:
        problem = "have all their joints in one place"
        raise InputError("driving poses", problem, "check the detected skeletons, or fit on other frames")


def weighted_median(values: Array, weights: Array) -> float:
    """The value with half of the weight on either side (the mean of two if they meet there)."""
    order = np.argsort(values)
    values, cumulative = values[order], np.cumsum(weights[order])
    half = cumulative[-1] / 2
    lower = int(np.searchsorted(cumulative, half * (1 - 1e-12)))
    upper = int(np.searchsorted(cumulative, half * (1 + 1e-12), side="right"))
    return float(values[lower] + values[min(upper, len(values) - 1)]) / 2
