"""A PoseNet to start from whose filters answer to small skeletons.

    python -m stableanimator_core.training.small.pose_start SET OUT --width 64

The official start (He normal filters, zero biases) is made for 512 pixels. On a 128-pixel picture, nearly all black,
its last layer varies by 0.03 and the U-Net learns to draw without looking at the skeleton. Here each filter is scaled
and shifted to mean 0 and variance 1 over skeletons of the set, layer by layer (after Mishkin and Matas,
arXiv:1511.06422). The projection stays zero: training still starts without pose.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...models.pose_net import PoseNet
from ...weights.files import save_weights

_PICTURES = 128


@torch.no_grad()
def normalise_filters(pose_net: PoseNet, poses: Tensor) -> None:
    """Scale and shift every filter before the projection, in place.

    Args:
        pose_net: the network.
        poses: skeleton pictures [b 3 H W] in [-1, 1].
    """
    x = poses
    for layer in pose_net.conv_layers:
        if not isinstance(layer, nn.Conv2d):
            x = F.silu(x)
            continue
        answer = layer(x)
        scale = 1 / answer.std(dim=(0, 2, 3)).clamp_min(1e-4)
        layer.weight *= scale[:, None, None, None]
        layer.bias.copy_((layer.bias - answer.mean(dim=(0, 2, 3))) * scale)  # pyright: ignore[reportOptionalMemberAccess]
        x = layer(x)


def read_skeletons(root: Path, count: int = _PICTURES) -> Tensor:
    """`count` skeleton pictures of a training set, evenly spread: [b 3 H W] in [-1, 1].

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
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.training.small.pose_start")
    parser.add_argument("set", type=Path, help="training set with skeletons")
    parser.add_argument("out", type=Path, help="the .safetensors to write")
    parser.add_argument("--width", type=int, required=True, help="of the U-Net's first level")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    pose_net = PoseNet(options.width)
    normalise_filters(pose_net, read_skeletons(options.set))
    state = pose_net.state_dict()
    save_weights(options.out, state, {"config": json.dumps(PoseNet.config_from(state))})


if __name__ == "__main__":
    main()
