"""HJB face optimisation: move the predicted clean latents towards the reference identity.

Paper: Tu et al., StableAnimator, arXiv:2411.17697 (HJB equation-based optimisation).
Code: method `step` of `euler_discrete_pro.py`, Francis-Rings/StableAnimator @ 020e7f2. Different here: the
loss comes as a callable, so this file knows neither decoder nor face network, and a gradient that cannot be
used is skipped.
Axes: f frames, c channels, h w height and width of latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LossAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Latents [f c h w] float32 -> (scalar loss, its gradient [f c h w]); 0 when every face is the reference
face."""


class Iteration(NamedTuple):
    """What one Adam step saw.

    Attributes:
        index: 0 for the first.
        loss: before the step was taken.
        skipped: why no step was taken ("" if it was).
    """

    index: int
    loss: float
    skipped: str


def refine_x0(
    x0: Tensor,
    loss_and_gradient: LossAndGradient,
    *,
    iterations: int,
    learning_rate: float,
    on_iteration: Callable[[Iteration], None] | None = None,
) -> Tensor:
    """`x0` after `iterations` steps of a new Adam down the identity loss; `x0` itself is left alone.

    Works where autograd is off, also with inference tensors. Adam and the latents it moves are float32.

    Args:
        x0: predicted clean latents [f c h w] (any leading axes the loss takes), any dtype.
        loss_and_gradient: see `LossAndGradient`; `differentiate` makes one from a plain loss.
        iterations: Adam steps; 0 gives `x0` back.
        learning_rate: about how far an element may move in one step.
        on_iteration: told of each step; may raise to cancel.
    """
    with torch.inference_mode(False), torch.enable_grad():  # ComfyUI runs nodes in inference mode
        refined = x0.detach().clone().float()  # the clone of an inference tensor is a normal one
        optimizer = torch.optim.Adam([refined], lr=learning_rate)
        for index in range(iterations):
            loss, gradient = loss_and_gradient(refined)
            skipped = why_unusable(gradient)
            if not skipped:
                refined.grad = gradient
                optimizer.step()
            if on_iteration is not None:
                on_iteration(Iteration(index, float(loss), skipped))
        return refined.detach().to(x0.dtype)


def why_unusable(gradient: Tensor) -> str:
    """ "" for a gradient Adam can follow, else what is wrong with it."""
    if not bool(torch.isfinite(gradient).all()):
        return "the gradient is not finite"
    if not bool(gradient.any()):
        return "the gradient is zero everywhere (the picture is saturated or left out)"
    return ""


def differentiate(loss: Callable[[Tensor], Tensor]) -> LossAndGradient:
    """The loss and gradient of a plain scalar loss, by one backward pass through all of it."""

    def loss_and_gradient(latents: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            variable = latents.detach().requires_grad_()
            value = loss(variable)
            (gradient,) = torch.autograd.grad(value, variable)
        return value.detach(), gradient

    return loss_and_gradient
