"""A small Animate Anyone with random weights, in the real file layouts, to show that everything is connected.

What it makes looks like noise. The files carry their configuration, so the loaders treat them as the published ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

UNET: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
}
GUIDER_WIDTHS = (8, 8, 8, 8)
MAX_FRAMES = 32


def write(folder: Path, token_width: int, seed: int = 0) -> list[Path]:
    """Write the five files that Animate Anyone has for itself; its image encoder may be another model's.

    Args:
        folder: made if it is not there.
        token_width: of the image encoder's embedding.
        seed: of the weights.
    """
    from ..models.vae import build_image_vae
    from ..weights.files import save_weights
    from .denoising_unet import MOTION, build_denoising_unet
    from .pose_guider import PoseGuider
    from .reference_net import build_reference_net

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = {**UNET, "cross_attention_dim": token_width}
    motion = {"max_frames": MAX_FRAMES}
    whole = build_denoising_unet({**config, MOTION: motion})
    guider = PoseGuider(config["block_out_channels"][0], GUIDER_WIDTHS)
    for network in (whole, guider):  # both hold zeros at their end, which would hide what is before
        _randomise_zeros(network)
    state = whole.state_dict()
    moving = {key: tensor for key, tensor in state.items() if ".motion_modules." in key}
    files: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any] | None]] = {
        "denoising_unet": ({key: state[key] for key in state.keys() - moving.keys()}, config),
        "reference_unet": (build_reference_net(config).state_dict(), config),
        "motion_module": (moving, None),
        "pose_guider": (guider.state_dict(), None),
        "vae": (build_image_vae(VAE).state_dict(), VAE),
    }
    for name, (weights, settings) in files.items():
        metadata = {"config": json.dumps(settings)} if settings else {}
        note = {"note": "random weights, for trying the plumbing"}
        save_weights(folder / f"{name}.safetensors", weights, {**note, **metadata})
    return [folder / f"{name}.safetensors" for name in files]


def _randomise_zeros(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
