"""The number formats that weights are kept in: one for a whole model, or 8 bits for its big matrices."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError

Module = TypeVar("Module", bound=nn.Module)
FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def cast_state(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The floating-point entries in `dtype`; counters and other integers stay as they are.

    Args:
        state: key -> tensor.
        dtype: None keeps the file's own; if it mixes several, the widest, but 8-bit matrices stay 8-bit.
    """
    floats = {t.dtype for t in state.values() if t.is_floating_point() and t.dtype not in FP8_DTYPES}
    if dtype is None and len(floats) <= 1:
        return dict(state)
    if dtype is None:
        widest = torch.float32 if len(floats) > 1 else floats.pop()
        return {key: t.to(widest) if t.dtype in floats else t for key, t in state.items()}
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()}


def store_in_fp8(module: Module, fp8_dtype: torch.dtype) -> Module:
    """Keep the matrices and filters of all linear and convolution layers in 8 bits; change `module` in place.

    Biases, norms, mixing factors and all else stay as they are. Plain torch layers then widen their weight to
    the input's format at each call; layers of a subclass are taken to do so themselves, as ComfyUI's do.

    Args:
        module: the network; halves the memory of one in fp16.
        fp8_dtype: torch.float8_e4m3fn (finer) or torch.float8_e5m2 (wider range).

    Returns:
        `module`.

    Raises:
        InputError: `fp8_dtype` is another format.
    """
    if fp8_dtype not in FP8_DTYPES:
        raise InputError(
            "weight dtype", f"is {fp8_dtype}, not an 8-bit format", "use float8_e4m3fn or float8_e5m2"
        )
    limit = torch.finfo(fp8_dtype).max
    for layer in module.modules():
        if not isinstance(layer, (nn.Linear, *_CONVOLUTIONS)):
            continue
        narrow = (
            layer.weight.detach().clamp(-limit, limit).to(fp8_dtype)
        )  # beyond the limit it would turn NaN
        layer.weight = nn.Parameter(narrow, requires_grad=False)
        if type(layer) is nn.Linear:
            layer.forward = MethodType(_linear, layer)
        elif type(layer) in _CONVOLUTIONS:
            layer.forward = MethodType(_convolution, layer)
    return module


def _linear(layer: nn.Linear, hidden: Tensor) -> Tensor:
    return nn.functional.linear(hidden, layer.weight.to(hidden.dtype), layer.bias)


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, hidden: Tensor) -> Tensor:
    return layer._conv_forward(hidden, layer.weight.to(hidden.dtype), layer.bias)
