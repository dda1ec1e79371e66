"""How a diffusion network's weights are stored, and what is computed in."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from torch import nn

from .sockets import one_of

COMPUTE_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def asked_for(weight_dtype: str) -> torch.dtype | None:
    """The dtype behind a word of the menu; None lets `store` choose.

    Raises:
        InputError: no word of the menu.
    """
    return WEIGHT_DTYPES[one_of("weight_dtype", weight_dtype, WEIGHT_DTYPES)]


def store(network: nn.Module, dtype: torch.dtype | None) -> tuple[torch.dtype, torch.dtype | None]:
    """Keep the weights of `network` in what suits file and card, unless `dtype` says what they are in.

    Returns:
        The dtype they are in, and the one to compute in where that is another, else None.
    """
    if dtype is None:
        file_dtype = next(network.parameters()).dtype
        parameters = sum(parameter.numel() for parameter in network.parameters())
        dtype = mm.unet_dtype(
            model_params=parameters, supported_dtypes=COMPUTE_DTYPES, weight_dtype=file_dtype
        )
        nn.Module.to(network, dtype)  # diffusers' own .to warns about modules it knows nothing of
    return dtype, mm.unet_manual_cast(dtype, mm.get_torch_device(), COMPUTE_DTYPES)
