"""A VAE for single pictures, made of a temporal-decoder VAE whose temporal layers do nothing: no training, no file.

The small demo model has one VAE for both systems in this way.

Encoders are the same network in both. The decoder takes the spatial halves of the temporal decoder's blocks, which
is exact while the temporal halves are the identity. What Stable Diffusion's layout has on top is made the identity:
the convolution after quantisation and, where the temporal decoder's middle has one block only, attention and a second
block there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InputError
from .norms import KEY as GROUPS
from .vae import SCALING_FACTOR, build_image_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

_SPATIAL = ".spatial_res_block."
_TEMPORAL = (".temporal_res_block.", ".time_mixer.", ".time_conv_out.")


def image_vae_of(vae: AutoencoderKLTemporalDecoder) -> AutoencoderKL:
    """Stable Diffusion's VAE that encodes as `vae` does and decodes single pictures as it does.

    Raises:
        InputError: the temporal layers of `vae` do something.
    """
    changed = [name for name, layer in _temporal_layers(vae.decoder) if not _is_identity(layer)]
    if changed:
        problem = f"has temporal layers that are not the identity ({len(changed)}, first {changed[0]})"
        raise InputError("the temporal VAE", problem, "use one whose temporal layers were not trained")
    image_vae: Any = build_image_vae(image_config_of(vae))
    middle: Any = vae.decoder.mid_block
    state = image_vae.state_dict()
    for key, tensor in vae.state_dict().items():
        if not any(part in f".{key}" for part in _TEMPORAL):
            state[key.replace(_SPATIAL, ".")] = tensor
    image_vae.load_state_dict(state)
    _make_extra_layers_identity(image_vae, len(middle.resnets))
    return image_vae.to(vae.dtype).eval()


def image_config_of(vae: AutoencoderKLTemporalDecoder) -> dict[str, Any]:
    """Constructor arguments of the picture VAE."""
    config: Any = vae.config
    widths = list(config.block_out_channels)
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "scaling_factor": SCALING_FACTOR,
        GROUPS: config.get(GROUPS) or 32,
    }


def _temporal_layers(decoder: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in decoder.named_modules():
        if name.endswith(("temporal_res_block", "time_conv_out")):
            yield name, layer


def _is_identity(layer: Any) -> bool:
    if hasattr(layer, "conv2"):  # a residual block
        return not layer.conv2.weight.any() and not layer.conv2.bias.any()
    identity = torch.zeros_like(layer.weight)
    middle = (size // 2 for size in layer.weight.shape[2:])
    identity[(..., *middle)] = torch.eye(len(layer.weight)).to(identity)
    return torch.equal(layer.weight, identity) and not layer.bias.any()


@torch.no_grad()
def _make_extra_layers_identity(image_vae: Any, middle_blocks: int) -> None:
    """What only the picture VAE has: a convolution, and blocks beyond the temporal decoder's `middle_blocks`."""
    _pass_through(image_vae.post_quant_conv)
    middle = image_vae.decoder.mid_block
    for resnet in middle.resnets[middle_blocks:]:
        _silence(resnet.conv2)
    for attention in middle.attentions[middle_blocks - 1 :]:  # each stands before a block
        _silence(attention.to_out[0])


def _pass_through(conv: nn.Conv2d) -> None:
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]


def _silence(layer: Any) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
