"""Frozen decoder layers that keep little for the backward pass.

PyTorch keeps the input of every normalisation, activation and convolution. With frozen weights the gradient
of a convolution needs none of that, and normalisation and SiLU are cheap to run again. So norm -> SiLU ->
convolution here keeps one tensor (its input) instead of three, and a lone convolution keeps none; no
convolution is computed twice. The kernels are PyTorch's own, so the gradient has the same bits.
Axes: n batch, c channels, g groups of a GroupNorm; x is [n c h w] or [n c f h w].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""GroupNorm -> its mean and 1/std, each [n g]."""


class Layers:
    """Runs a decoder's convolutions one of several ways.

    Args:
        keep_little: run normalisation and SiLU again in the backward pass instead of keeping their results.
        frozen: statistics for the norms to use instead of those of their input. Norms not in it use their
            own.
        record: filled with the statistics of each norm, if given.
    """

    def __init__(
        self, *, keep_little: bool, frozen: Statistics | None = None, record: Statistics | None = None
    ):
        self.keep_little = keep_little
        self.frozen = frozen or {}
        self.record = record

    def conv(self, conv: nn.Module, x: Tensor) -> Tensor:
        return _Conv.apply(x, conv) if self.keep_little else conv(x)  # type: ignore[return-value]

    def norm_act_conv(self, norm: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
        """conv(SiLU(norm(x)))."""
        if self.record is not None:
            self.record[norm] = _group_norm(norm, x)[1:]
        statistics = self.frozen.get(norm)
        if self.keep_little:
            return _NormActConv.apply(x, norm, conv, statistics)  # type: ignore[return-value]
        normed = norm(x) if statistics is None else _affine(x, *_scale_and_shift(norm, statistics, x))
        return conv(F.silu(normed))


class _Conv(torch.autograd.Function):
    """A convolution with frozen weights: keeps nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Module) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return conv(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _input_gradient(grads[0], ctx.conv, ctx.shape), None


class _NormActConv(torch.autograd.Function):
    """conv(SiLU(norm(x))) with frozen weights: keeps x and the statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: nn.Module, conv: nn.Module, frozen: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        ctx.norm, ctx.conv, ctx.frozen = norm, conv, frozen
        normed, mean, rstd = _normalise(norm, x, frozen)
        ctx.save_for_backward(x, mean, rstd)
        return conv(F.silu(normed))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean, rstd = ctx.saved_tensors
        grad = _input_gradient(grads[0], ctx.conv, x.shape)
        normed = _normalise(ctx.norm, x, ctx.frozen)[0]
        grad = torch.ops.aten.silu_backward(grad, normed)
        del normed  # the largest tensors are alive here
        if ctx.frozen is not None:
            return grad * _scale_and_shift(ctx.norm, ctx.frozen, x)[0], None, None, None
        return _group_norm_gradient(ctx.norm, grad, x, mean, rstd), None, None, None


def _normalise(norm: Any, x: Tensor, frozen: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    if frozen is None:
        return _group_norm(norm, x)
    return _affine(x, *_scale_and_shift(norm, frozen, x)), *frozen


def _group_norm(norm: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels = x.shape[:2]
    area = x[0, 0].numel()
    return torch.native_group_norm(
        x.contiguous(), norm.weight, norm.bias, batch, channels, area, norm.num_groups, norm.eps
    )


def _group_norm_gradient(norm: Any, grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    sizes = (*x.shape[:2], x[0, 0].numel(), norm.num_groups)
    return torch.ops.aten.native_group_norm_backward(
        grad.contiguous(), x.contiguous(), mean, rstd, norm.weight, *sizes, [True, False, False]
    )[0]


def _scale_and_shift(norm: Any, statistics: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What a GroupNorm with these statistics multiplies by and adds; each [n c 1 1 ..] with the axes of x."""
    mean, rstd = (part.float().repeat_interleave(x.shape[1] // norm.num_groups, dim=1) for part in statistics)
    scale = rstd * norm.weight.float()  # [n c]
    shift = norm.bias.float() - mean * scale
    ones = (1,) * (x.ndim - 2)
    return scale.to(x.dtype).unflatten(1, (-1, *ones)), shift.to(x.dtype).unflatten(1, (-1, *ones))


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, x, scale)


def _input_gradient(grad: Tensor, conv: Any, shape: torch.Size) -> Tensor:
    """Gradient of a convolution's input. The input itself is not needed, only its shape."""
    stand_in = grad.new_empty(1).expand(shape)
    padding, no_output_padding = list(conv.padding), [0] * len(conv.padding)
    return torch.ops.aten.convolution_backward(
        grad,
        stand_in,
        conv.weight,
        None,
        list(conv.stride),
        padding,
        list(conv.dilation),
        False,
        no_output_padding,
        conv.groups,
        [True, False, False],
    )[0]
