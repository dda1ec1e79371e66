"""Copies of networks that autograd may use, so that the networks themselves stay as they are."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def usable_copy(
    module: nn.Module, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> nn.Module:
    """`module` itself if it can be differentiated through as it is, else a frozen copy in eval mode that can.

    A module loaded under `torch.inference_mode` (all of ComfyUI's nodes run so) holds inference tensors,
    which autograd refuses to keep; a copy with cloned weights has none. The original is never changed.

    Args:
        module: any network.
        dtype: of the weights wanted; theirs if None.
        device: where they are wanted; where they are if None.
    """
    weights = list(chain(module.parameters(), module.buffers()))
    fits = not any(weight.is_inference() or not _matches(weight, dtype, device) for weight in weights)
    in_eval = not any(part.training for part in module.modules())
    if fits and in_eval:
        return module
    with torch.inference_mode(False), torch.no_grad():
        copies: dict[int, object] = {}  # what deepcopy finds here it does not copy itself
        for weight in weights:
            clone = weight.detach().to(device=device, dtype=_dtype(weight, dtype), copy=True)
            is_parameter = isinstance(weight, nn.Parameter)
            copies[id(weight)] = nn.Parameter(clone, requires_grad=False) if is_parameter else clone
        return copy.deepcopy(module, copies).train(False)


def _dtype(weight: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and weight.is_floating_point() else weight.dtype


def _matches(weight: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> bool:
    return weight.dtype == _dtype(weight, dtype) and (device is None or weight.device == torch.device(device))
