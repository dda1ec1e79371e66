"""Noise levels to train on: the interpolated shifted cosine schedule.

Paper: Hoogeboom et al., simple diffusion, arXiv:2301.11093 (shifted and interpolated cosine schedules).
Constants: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: b videos of a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..sigmas import SIGMA_MAX, SIGMA_MIN

SIGMA_DATA = 0.5
IMAGE_SIZE = 64
NOISE_SIZES = (32, 64)
"""Picture sizes whose schedules are mixed: the first where noise is strong, the second where it is weak."""


def stratified(draws: Tensor) -> Tensor:
    """Uniform draws [... b] in [0, 1) to [... b] in [0, 1] where the k-th of b videos gets (k + draw) / b."""
    batch = draws.shape[-1]
    return (torch.arange(batch, device=draws.device) + draws) / batch


def sigma_of(uniform: Tensor) -> Tensor:
    """Noise levels of uniform numbers in [0, 1]: 700 at 0, falling to 0.002 at 1; float32, same shape.

    The log-SNRs -2 ln(sigma / 0.5) of the two schedules are mixed with weights 1 - u and u.
    """
    u = uniform.double()  # near u = 0 the tangent is steep
    strong, weak = (_shifted_cosine(u, size / IMAGE_SIZE) for size in NOISE_SIZES)
    return (strong ** (1 - u) * weak**u).float()


def lognormal_sigma_of(uniform: Tensor, mean: float, std: float) -> Tensor:
    """Noise levels of uniform numbers in [0, 1] whose logarithm is normal: Karras et al., arXiv:2206.00364.

    Falls with its argument, as `sigma_of`, and stays within the sampler's noise levels.

    Args:
        uniform: any shape.
        mean: of ln sigma.
        std: likewise.
    """
    log_sigma = mean - std * torch.special.ndtri(uniform.double())
    return log_sigma.exp().clamp(SIGMA_MIN, SIGMA_MAX).float()


def _shifted_cosine(u: Tensor, size_ratio: float) -> Tensor:
    """Sigma of the cosine schedule whose log-SNR is raised by 2 ln(size ratio) between unmoved ends."""
    start = math.atan(size_ratio * SIGMA_MAX / SIGMA_DATA)
    end = math.atan(size_ratio * SIGMA_MIN / SIGMA_DATA)
    return SIGMA_DATA / size_ratio * torch.tan(start + u * (end - start))
