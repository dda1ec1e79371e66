"""Noise levels and the sampler: Karras spacing, EDM v-prediction, Euler steps.

Karras et al. 2022, arXiv:2206.00364 (equation 5 for the spacing, Algorithm 2 without churn for the steps); the
constants are those of Stable Video Diffusion's scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SIGMA_MAX = 700.0
SIGMA_MIN = 0.002
RHO = 7.0

Denoise = Callable[[Tensor, Tensor, int], Tensor]
"""(latents, sigma, step) -> x0, all in the scale of the latents."""

StepHook = Callable[[int, Tensor], Tensor]
"""(step, x0) -> x0: sees, and may replace, the predicted clean latents of a step."""


def karras_sigmas(num_steps: int, *, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """`num_steps` noise levels from `sigma_max` down to `sigma_min`, then 0: float32 [num_steps + 1].

    Raises:
        ValueError: fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / RHO), sigma_max ** (1 / RHO)
    sigmas = (high + ramp * (low - high)) ** RHO
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def timestep_of(sigma: Tensor) -> Tensor:
    """What the U-Net is told about the noise level: ln(sigma) / 4, same shape as `sigma`."""
    return 0.25 * sigma.log()


def initial_noise_scale(sigmas: Tensor) -> Tensor:
    """The official start is noise times sqrt(sigma_max^2 + 1), about 700.0007."""
    return (sigmas.max() ** 2 + 1) ** 0.5


def scale_input(latents: Tensor, sigma: Tensor) -> Tensor:
    """c_in of EDM with sigma_data = 1: latents / sqrt(sigma^2 + 1)."""
    return latents / (sigma**2 + 1) ** 0.5


def predicted_x0(latents: Tensor, v_prediction: Tensor, sigma: Tensor) -> Tensor:
    """x0 = c_skip latents + c_out v with c_skip = 1 / (sigma^2 + 1), c_out = -sigma / sqrt(sigma^2 + 1)."""
    return latents / (sigma**2 + 1) - v_prediction * (sigma / (sigma**2 + 1) ** 0.5)


def sample_euler(
    denoise: Denoise, latents: Tensor, sigmas: Tensor | Sequence[Tensor], *, on_x0: StepHook | None = None
) -> Tensor:
    """Euler steps down `sigmas`: Karras et al. 2022, Algorithm 2 without churn.

    Args:
        denoise: predicts x0 from latents at a noise level.
        latents: any shape, already scaled to `sigmas[0]`.
        sigmas: falling noise levels, the last one usually 0.
        on_x0: called with each step's x0; what it returns takes the step. HJB refinement is such a hook.
    """
    for step, (sigma, next_sigma) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = denoise(latents, sigma, step)
        if on_x0 is not None:
            x0 = on_x0(step, x0)
        derivative = (latents - x0) / sigma
        latents = latents + derivative * (next_sigma - sigma)
    return latents
