"""Noise levels and the sampler: DDIM on v-predictions, with a last noise level that holds no signal at all.

Song et al., DDIM, arXiv:2010.02502 (eta 0); Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed,
arXiv:2305.08891 (rescaling to zero signal, v-prediction, times counted from the end). Constants and the rule for the
next time are those of MooreThreads/Moore-AnimateAnyone @ a914ef3: betas are spaced linearly when sampling, although
training spaces their roots, and a step goes down by floor(1000 / n) even where the list's next time is one further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..sigmas import StepHook

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
DEFAULT_STEPS = 25
FINAL_ALPHA = 1.0
"""Cumulative alpha after the last step, where that ends before time 0."""

Spacing = Literal["linear", "scaled_linear"]
PredictV = Callable[[Tensor, int, int], Tensor]
"""(latents, timestep, step) -> v, in the shape of the latents."""


def alphas_cumprod(spacing: Spacing = "linear", *, zero_snr: bool = True) -> Tensor:
    """Cumulative alphas of all 1000 times, falling: float32 [1000].

    Args:
        spacing: of the betas; "linear" when sampling, "scaled_linear" (linear in their roots) in training.
        zero_snr: shift and stretch their roots so that the last is 0 and the first stays.
    """
    if spacing == "linear":
        betas = torch.linspace(BETA_START, BETA_END, TRAIN_STEPS, dtype=torch.float64)
    else:
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    if zero_snr:
        roots = alphas.sqrt()
        alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return alphas.float()


def trailing_timesteps(num_steps: int) -> list[int]:
    """`num_steps` times from 999 down, evenly spaced as seen from the end.

    Raises:
        InputError: not between 1 and 1000.
    """
    if not 1 <= num_steps <= TRAIN_STEPS:
        raise InputError(
            "steps", f"is {num_steps}", f"use 1 to {TRAIN_STEPS}; the official values are 20 to 30"
        )
    times = np.round(np.arange(TRAIN_STEPS, 0, -TRAIN_STEPS / num_steps)) - 1
    return [int(time) for time in times[:num_steps]]  # rounding may have made one too many


def previous_timestep(timestep: int, num_steps: int) -> int:
    """The time a step goes to; negative means the clean end."""
    return timestep - TRAIN_STEPS // num_steps


def alpha_at(alphas: Tensor, timestep: int) -> Tensor:
    """Cumulative alpha of a time, a scalar; that of the clean end for negative ones."""
    return alphas[timestep] if timestep >= 0 else alphas.new_tensor(FINAL_ALPHA)


def predicted_x0(latents: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
    """x0 = sqrt(alpha) latents - sqrt(1 - alpha) v."""
    return alpha.sqrt() * latents - (1 - alpha).sqrt() * v


def ddim_step(latents: Tensor, x0: Tensor, alpha: Tensor, alpha_previous: Tensor) -> Tensor:
    """From `latents` at `alpha` to those at `alpha_previous`, in the direction of `x0`: equation 12 with eta 0.

    The noise is what `latents` holds besides `x0`, so a changed `x0` is followed consistently.
    """
    noise = (latents - alpha.sqrt() * x0) / (1 - alpha).sqrt()
    return alpha_previous.sqrt() * x0 + (1 - alpha_previous).sqrt() * noise


def sample_ddim(
    predict_v: PredictV, latents: Tensor, num_steps: int, *, on_x0: StepHook | None = None
) -> Tensor:
    """DDIM from pure noise to clean latents.

    Args:
        predict_v: predicts v from latents at a time.
        latents: standard normal, any shape.
        num_steps: see `trailing_timesteps`.
        on_x0: called with each step's x0; what it returns takes the step. HJB refinement is such a hook.

    Raises:
        InputError: an impossible number of steps.
    """
    alphas = alphas_cumprod().to(latents.device)
    for step, timestep in enumerate(trailing_timesteps(num_steps)):
        alpha = alpha_at(alphas, timestep)
        x0 = predicted_x0(latents, predict_v(latents, timestep, step), alpha)
        if on_x0 is not None:
            x0 = on_x0(step, x0)
        latents = ddim_step(latents, x0, alpha, alpha_at(alphas, previous_timestep(timestep, num_steps)))
    return latents
