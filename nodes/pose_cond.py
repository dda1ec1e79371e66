"""Skeletons as CONDITIONING: features of every frame, and the part of the sampling in which they act.

One way for both systems. Frames are the batch axis; core repeats conditioning to that axis, these are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ..stableanimator_core.errors import InputError

POSE = "stableanimator_pose"
"""Entry of CONDITIONING that holds a `PoseCondition`."""

# Features of a short clip stay on the device for the whole run; longer ones are sent window by window.
_KEEP_ON_DEVICE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SigmaRange:
    """The part of the sampling in which something acts: from `start` down to `end`, both noise levels included."""

    start: float = float("inf")
    end: float = 0.0

    def __contains__(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start

    @classmethod
    def of_percents(cls, model_sampling: Any, start: float, end: float) -> SigmaRange:
        """From percents of the sampling, 0..1, as core counts them."""
        return cls(float(model_sampling.percent_to_sigma(start)), float(model_sampling.percent_to_sigma(end)))


@dataclass(frozen=True)
class PoseCondition:
    """What a pose node puts into CONDITIONING: features [f c h w] on the CPU, and when they act (percents)."""

    features: Tensor
    start: float = 0.0
    end: float = 1.0


class PoseParts(tuple):
    """Pose features of each guidance half with their ranges; a kind of its own, so that core passes it through."""


class CONDPose(comfy.conds.CONDRegular):
    """Per-frame features. Never repeated or copied for the batch; a half without pose holds one broadcast zero."""

    def __init__(self, cond: Tensor, sigmas: SigmaRange | None = None):
        super().__init__(cond)
        self.sigmas = sigmas or SigmaRange()

    def _copy_with(self, cond: Tensor) -> CONDPose:
        return CONDPose(cond, self.sigmas)

    def process_cond(self, batch_size: int, **kwargs: Any) -> CONDPose:
        return self

    def can_concat(self, other: Any) -> bool:
        return isinstance(other, CONDPose)

    def concat(self, others: Sequence[CONDPose]) -> PoseParts:
        return PoseParts((cond.cond, cond.sigmas) for cond in (self, *others))


def pose_cond(
    model: Any, pose: PoseCondition | None, channels: int, noise: Tensor, device: torch.device
) -> CONDPose:
    """`pose` for the BaseModel `model`, in the dtype it computes in, checked against the latents.

    Raises:
        InputError: another size or another number of frames than `noise` [f 4 h w], or other channels.
    """
    dtype = model.manual_cast_dtype or model.get_dtype()
    if pose is None:
        return CONDPose(torch.zeros(1, channels, 1, 1, dtype=dtype))
    expected = (noise.shape[0], channels, *noise.shape[-2:])
    if tuple(pose.features.shape) != expected:
        frames, channels, height, width = pose.features.shape
        raise InputError(
            "pose images",
            f"are {frames} frames of {width * 8} x {height * 8} ({channels} channels), the latent has "
            f"{expected[0]} frames of {expected[3] * 8} x {expected[2] * 8} ({expected[1]} channels)",
            "give both the same number of frames and the same size, and use the pose net of the same model",
        )
    features = pose.features.to(dtype)
    if features.numel() * features.element_size() <= _KEEP_ON_DEVICE_BYTES:
        features = features.to(device)
    return CONDPose(features, SigmaRange.of_percents(model.model_sampling, pose.start, pose.end))


def pose_of_batch(parts: PoseParts, x: Tensor, sigma: float, options: dict[str, Any]) -> Tensor:
    """Features of each half in the order of the batch, [bf c h w] on the device of x; zeros where they do not act."""
    num_frames = x.shape[0] // len(parts)
    window = options.get("context_window")
    rows = []
    for features, sigmas in parts:
        if window is not None and features.shape[0] > num_frames:
            # core's own window nodes do not slice axis 0
            features = features[list(window.index_list)]
        if sigma not in sigmas:
            features = features.new_zeros(1, features.shape[1], 1, 1)
        rows.append(features.to(x.device).expand(num_frames, -1, *x.shape[-2:]))
    return torch.cat(rows)
