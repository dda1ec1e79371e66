"""python -m stableanimator_core.demo_weights DIR: a small StableAnimator with random weights, in the real file layouts.

It shows that everything is connected; what it makes looks like noise. The files carry their configuration, so the
loaders treat them as they treat the published ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

TOKEN_WIDTH = 128
UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64, 64],
    "num_attention_heads": [2, 4, 4, 4],
    "cross_attention_dim": TOKEN_WIDTH,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
}
VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "block_out_channels": [32, 32, 32, 32],
    "layers_per_block": 1,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
IMAGE_ENCODER = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": TOKEN_WIDTH,
    "hidden_act": "gelu",
}
RECOGNISER = {"layers": [1, 1, 1, 1], "widths": [16, 16, 16, 16], "stem_width": 16}
FILES = (
    "unet.safetensors",
    "pose_net.safetensors",
    "face_encoder.safetensors",
    "face_recognizer.safetensors",
    "SVD",
)


def write(folder: Path, seed: int = 0) -> list[Path]:
    """Write the files of `FILES` into `folder`; SVD is a diffusers folder.

    Returns:
        The paths, in the order of `FILES`.
    """
    from .models.face_encoder import FaceEncoder
    from .models.image_encoder import build_image_encoder
    from .models.iresnet import IResNet
    from .models.pose_net import PoseNet
    from .models.unet import build_unet
    from .models.vae import build_vae
    from .weights.files import save_weights

    torch.manual_seed(seed)
    vae, image_encoder = folder / "SVD" / "vae", folder / "SVD" / "image_encoder"
    for directory in (vae, image_encoder):
        directory.mkdir(parents=True, exist_ok=True)
        config = VAE if directory is vae else IMAGE_ENCODER
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_weights(vae / "diffusion_pytorch_model.safetensors", build_vae(VAE).state_dict())
    save_weights(image_encoder / "model.safetensors", build_image_encoder(IMAGE_ENCODER).state_dict())

    pose_net, face_encoder = (
        PoseNet(UNET["block_out_channels"][0]),
        FaceEncoder(TOKEN_WIDTH, 512, TOKEN_WIDTH),
    )
    for network in (pose_net, face_encoder):  # both start with zeros at their end, which would hide them
        _randomise_zeros(network)
    networks: Mapping[str, tuple[nn.Module, dict[str, Any] | None]] = {
        "unet.safetensors": (build_unet(UNET), UNET),
        "pose_net.safetensors": (pose_net, None),
        "face_encoder.safetensors": (face_encoder, None),
        "face_recognizer.safetensors": (IResNet(**RECOGNISER), None),
    }
    for name, (network, config) in networks.items():
        metadata = {"config": json.dumps(config)} if config else {}
        note = {"note": "random weights, for trying the plumbing"}
        save_weights(folder / name, network.state_dict(), {**note, **metadata})
    return [folder / name for name in FILES]


def _randomise_zeros(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.demo_weights", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="where to write, for example ComfyUI/models/stableanimator/random"
    )
    write(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
