"""The VAEs: Stable Video Diffusion's with temporal decoder, and Stable Diffusion's for single pictures.

diffusers' AutoencoderKLTemporalDecoder and AutoencoderKL; their encoders are the same.

Axes: b pictures, f frames, H W pixels, h w latent cells (H/8, W/8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .norms import set_groups, split_groups

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder

SCALING_FACTOR = 0.18215
"""The U-Net's latents are the VAE's times this."""


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration, read from the shapes of a state dict in diffusers' layout."""
    blocks = 1 + max(
        int(found[1]) for key in state if (found := re.match(r"encoder\.down_blocks\.(\d+)\.", key))
    )
    layers = {
        found[1] for key in state if (found := re.match(r"encoder\.down_blocks\.0\.resnets\.(\d+)\.", key))
    }
    widths = [
        state[f"encoder.down_blocks.{block}.resnets.0.conv1.weight"].shape[0] for block in range(blocks)
    ]
    return {
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "block_out_channels": widths,
        "layers_per_block": len(layers),
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "scaling_factor": SCALING_FACTOR,
    }


def image_config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same for Stable Diffusion's VAE."""
    config = config_from(state)
    return {**config, "up_block_types": ["UpDecoderBlock2D"] * len(config["block_out_channels"])}


def build_image_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    """Stable Diffusion's VAE, with random weights.

    Args:
        config: constructor arguments of AutoencoderKL; entries starting with "_" are left out.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(**{key: value for key, value in config.items() if not key.startswith("_")})


def build_vae(config: Mapping[str, Any]) -> AutoencoderKLTemporalDecoder:
    """The network, with random weights.

    Args:
        config: constructor arguments of AutoencoderKLTemporalDecoder, and `norm_num_groups` (32 if left out);
            entries starting with "_" are left out.
    """
    from diffusers import AutoencoderKLTemporalDecoder

    arguments, groups = split_groups(config)
    vae = AutoencoderKLTemporalDecoder(**arguments)
    set_groups(vae, groups)
    return vae


def encode_mode(vae: AutoencoderKLTemporalDecoder | AutoencoderKL, pixels: Tensor) -> Tensor:
    """The mode (mean) of the posterior, not multiplied by the scaling factor.

    Args:
        vae: the network.
        pixels: [b, 3, H, W] in [-1, 1], H and W multiples of 8.

    Returns:
        [b, 4, h, w], in the VAE's dtype.
    """
    return vae.encode(pixels.to(vae.dtype)).latent_dist.mode()  # pyright: ignore[reportAttributeAccessIssue]


def decode_frames(vae: AutoencoderKLTemporalDecoder, latents: Tensor, num_frames: int) -> Tensor:
    """Decode frames that belong together. The decoder mixes neighbours in time inside one call.

    Args:
        vae: the network.
        latents: [f, 4, h, w], already divided by the scaling factor; f is a multiple of `num_frames`.
        num_frames: frames per group that may see each other.

    Returns:
        [f, 3, H, W], about [-1, 1], not clamped.
    """
    return vae.decode(latents.to(vae.dtype), num_frames=num_frames).sample  # pyright: ignore[reportAttributeAccessIssue]


def decode_pictures(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode pictures that know nothing of each other, as many at a time as there are.

    Args:
        vae: Stable Diffusion's.
        latents: [b, 4, h, w], already divided by the scaling factor.

    Returns:
        [b, 3, H, W], about [-1, 1], not clamped.
    """
    return vae.decode(latents.to(vae.dtype)).sample  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
