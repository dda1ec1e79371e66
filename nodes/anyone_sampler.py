"""DDIM Trailing: Animate Anyone's official sampling, exactly: its times, its rule for the next time, its last level.

Core's samplers work on x0 + sigma * noise. DDIM works on the same divided by sqrt(1 + sigma^2), which stays finite
where nothing but noise is left; there the official sigma is infinite, core's is 4519.
"""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io
from torch import Tensor

from ..stableanimator_core.animate_anyone.ddim import (
    DEFAULT_STEPS,
    FINAL_ALPHA,
    ddim_step,
    previous_timestep,
    trailing_timesteps,
)
from .anyone_model import expect_anyone_model
from .base import CATEGORY, AnimatorNode

_CLEAN = -1  # the time after the last one


class DDIMTrailing(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_DDIMTrailing",
            display_name="DDIM Trailing (Animate Anyone)",
            category=f"{CATEGORY}/sampling",
            description="The official sampling of Animate Anyone for SamplerCustom: the same times, and steps exactly "
            "as published. KSampler with euler and simple differs from it by less than you can see.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Animate Anyone Models."),
                io.Int.Input(
                    "steps",
                    default=DEFAULT_STEPS,
                    min=1,
                    max=1000,
                    tooltip="Denoising steps: 20 in the paper, 25 in the published demo, 30 in its script.",
                ),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler", tooltip="For SamplerCustom, or through HJB Sampler to it."
                ),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="The noise levels, for the same SamplerCustom."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, steps: int) -> io.NodeOutput:
        expect_anyone_model(model)
        levels = model.get_model_object("model_sampling").sigmas
        sigmas = torch.cat([levels[trailing_timesteps(steps)].float().cpu(), torch.zeros(1)])
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_trailing, {"num_steps": steps}), sigmas)


@torch.no_grad()
def sample_trailing(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: Any = None,
    *,
    num_steps: int,
) -> Tensor:
    """A sampler function as core calls them.

    Args:
        model: gives x0 of core's x at sigmas [f].
        x: x0 + sigma * noise at `sigmas[0]`.
        sigmas: noise levels; those of `DDIMTrailing`, a part of them, or others, between which plain DDIM steps.
        extra_args: passed on to `model`.
        callback: told of each step.
        disable: of the progress bar, which core draws.
        num_steps: official number of steps, from which the next time follows.
    """
    sampling = model.inner_model.inner_model.model_sampling
    times = [_time_of(sampling, sigma) for sigma in sigmas]
    latents = x / _spread(sigmas[0])
    for step, (sigma, time, following) in enumerate(zip(sigmas[:-1], times[:-1], times[1:], strict=True)):
        x = latents * _spread(sigma)
        x0 = model(x, sigma * x.new_ones(x.shape[0]), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": x0})
        alpha = _alpha_at(sampling, time)
        if alpha == 0:
            x0 = _without_signal(x0, latents, sigma)
        goal = previous_timestep(time, num_steps)
        if abs(max(goal, _CLEAN) - following) > 1:  # levels of another schedule
            goal = following
        latents = ddim_step(latents, x0, alpha, _alpha_at(sampling, goal))
    return latents * _spread(sigmas[-1])


def _time_of(sampling: Any, sigma: Tensor) -> int:
    return int(sampling.timestep(sigma[None])[0]) if sigma > 0 else _CLEAN


def _alpha_at(sampling: Any, time: int) -> Tensor:
    """Cumulative alpha of a time as the official table has it: 0 where core's last sigma stands for infinity."""
    levels = sampling.sigmas
    if time < 0:
        return levels.new_tensor(FINAL_ALPHA)
    if getattr(sampling, "zsnr", False) and time == len(levels) - 1:
        return levels.new_zeros(())
    return 1 / (1 + levels[time] ** 2)


def _spread(sigma: Tensor) -> Tensor:
    return (1 + sigma**2).sqrt()


def _without_signal(x0: Tensor, latents: Tensor, sigma: Tensor) -> Tensor:
    """x0 = -v at the last level; core took a trace of the latents for signal there."""
    return (x0 * _spread(sigma) - latents) / sigma
