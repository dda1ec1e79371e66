"""A PoseNet or pose guider to start from whose filters answer to small skeletons.

    python -m stableanimator_core.training.small.pose_start SET OUT --width 64
    python -m stableanimator_core.training.small.pose_start SET OUT --width 64 --guider 8 16 32 64

The official starts are made for 512 pixels. On a 128-pixel picture, nearly all black, PoseNet's last layer varies by
0.03 and the U-Net learns to draw without looking at the skeleton. Here each filter is scaled and shifted to mean 0
and variance 1 over skeletons of the set, layer by layer (after Mishkin and Matas, arXiv:1511.06422). The last
projection stays zero: training still starts without pose.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...animate_anyone.pose_guider import PoseGuider
from ...errors import InputError
from ...models.pose_net import PoseNet
from ...weights.files import save_weights

_PICTURES = 128


@torch.no_grad()
def normalise_filters(filters: Sequence[nn.Conv2d], poses: Tensor) -> None:
    """Scale and shift convolutions that follow each other with SiLU between them, in place.

    Args:
        filters: all but the projection, the first one first.
        poses: skeleton pictures [b 3 H W] as the first one takes them.
    """
    x = poses
    for layer in filters:
        answer = layer(x)
        scale = 1 / answer.std(dim=(0, 2, 3)).clamp_min(1e-4)
        layer.weight *= scale[:, None, None, None]
        layer.bias.copy_((layer.bias - answer.mean(dim=(0, 2, 3))) * scale)  # pyright: ignore[reportOptionalMemberAccess]
        x = F.silu(layer(x))


def filters_of(network: PoseNet | PoseGuider) -> list[nn.Conv2d]:
    """All convolutions before the projection."""
    layers = network.conv_layers if isinstance(network, PoseNet) else [network.conv_in, *network.blocks]
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def read_skeletons(root: Path, count: int = _PICTURES) -> Tensor:
    """`count` skeleton pictures of a training set, evenly spread: [b 3 H W] in [0, 1].

    Raises:
        InputError: there are none.
    """
    from PIL import Image

    files = sorted(root.glob("*/*/poses/*.png"))
    if not files:
        raise InputError(
            "the set", f"{root} holds no */*/poses/*.png", "make it with stableanimator_core.puppets"
        )
    chosen = [files[i * len(files) // count] for i in range(min(count, len(files)))]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.training.small.pose_start")
    parser.add_argument("set", type=Path, help="training set with skeletons")
    parser.add_argument("out", type=Path, help="the .safetensors to write")
    parser.add_argument("--width", type=int, required=True, help="of the U-Net's first level")
    parser.add_argument("--guider", type=int, nargs="+", help="Animate Anyone's pose guider, of these widths")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    poses = read_skeletons(options.set)
    if options.guider:
        network = PoseGuider(options.width, options.guider)
    else:
        network, poses = PoseNet(options.width), poses * 2 - 1
    normalise_filters(filters_of(network), poses)
    state = network.state_dict()
    save_weights(options.out, state, {"config": json.dumps(network.config_from(state))})


if __name__ == "__main__":
    main()
