"""Body joints in a small picture of one person, for measuring how well a clip keeps to its poses.

A convolutional hour-glass with heatmaps; a joint's place is the mean of its heatmap (soft-argmax: Sun et al., Integral
Human Pose Regression, arXiv:1711.08229). Trained on the drawn people; of no use on photographs.
Axes: f pictures, H W pixels (128x128), h w cells of the heatmap (H/4), j joints (18, `pose.people.BODY_JOINTS`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, WeightsError
from ..pose.people import BODY_JOINTS
from ..weights.files import read_weights, save_weights
from ..weights.load import load_exactly

SIZE = 128
"""Side of the pictures it was made for; others are resized to it."""


@dataclass(frozen=True, eq=False)
class Joints:
    """Where the joints of the pictures are.

    Attributes:
        points: float32 [f j 2], x and y as fractions of the picture.
        scores: float32 [f j], 0..1: how sure it is that the joint can be seen.
    """

    points: Tensor
    scores: Tensor


class JointDetector(nn.Module):
    """Pictures to heatmaps.

    Args:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the picture's side.
        num_joints: j.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64), num_joints: int = len(BODY_JOINTS)):
        super().__init__()
        self.config = {"widths": list(widths), "num_joints": num_joints}
        half, quarter, eighth, sixteenth = widths
        self.stem = _layer(3, half, stride=2)
        self.down1 = nn.Sequential(_layer(half, quarter, stride=2), _layer(quarter, quarter))
        self.down2 = nn.Sequential(_layer(quarter, eighth, stride=2), _layer(eighth, eighth))
        self.down3 = nn.Sequential(
            _layer(eighth, sixteenth, stride=2), _Residual(sixteenth), _Residual(sixteenth)
        )
        self.up2 = nn.Sequential(_layer(sixteenth + eighth, eighth), _layer(eighth, eighth))
        self.up1 = nn.Sequential(_layer(eighth + quarter, quarter), _layer(quarter, quarter))
        self.heatmaps = nn.Conv2d(quarter, num_joints, 1)
        self.seen = nn.Linear(sixteenth, num_joints)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [f 3 128 128] in [-1, 1] to heatmap logits [f j 32 32] and logits of being seen [f j]."""
        quarter = self.down1(self.stem(pictures))
        eighth = self.down2(quarter)
        sixteenth = self.down3(eighth)
        x = self.up2(torch.cat([_doubled(sixteenth), eighth], dim=1))
        x = self.up1(torch.cat([_doubled(x), quarter], dim=1))
        return self.heatmaps(x), self.seen(sixteenth.mean(dim=(2, 3)))

    @torch.no_grad()
    def locate(self, pictures: Tensor) -> Joints:
        """The joints in pictures [f 3 H W], RGB in [0, 1]; an eval-mode network gives the same every time.

        Raises:
            InputError: not such pictures.
        """
        if pictures.dim() != 4 or pictures.shape[1] != 3:
            raise InputError("the pictures", f"have the shape {list(pictures.shape)}", "give [f, 3, H, W]")
        parameter = self.seen.weight
        pixels = pictures.to(parameter.device, parameter.dtype) * 2 - 1
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        logits, seen = self(pixels)
        return Joints(soft_argmax(logits.float()), seen.float().sigmoid())


def soft_argmax(logits: Tensor) -> Tensor:
    """Mean places [f j 2], x and y as fractions of the picture, of heatmap logits [f j h w]."""
    height, width = logits.shape[-2:]
    shares = logits.flatten(2).softmax(dim=2).unflatten(2, (height, width))
    xs = (torch.arange(width, device=logits.device) + 0.5) / width
    ys = (torch.arange(height, device=logits.device) + 0.5) / height
    return torch.stack([(shares.sum(dim=2) * xs).sum(dim=2), (shares.sum(dim=3) * ys).sum(dim=2)], dim=2)


def save_joint_detector(path: Path, network: JointDetector, dtype: torch.dtype = torch.float16) -> None:
    """Write the network with its configuration as a .safetensors file."""
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    save_weights(path, state, {"model": "JointDetector", "config": json.dumps(network.config)})


def load_joint_detector(path: str | Path, dtype: torch.dtype = torch.float32) -> JointDetector:
    """The network of a file of `save_joint_detector`, in eval mode, without gradients.

    Raises:
        WeightsError: missing, damaged, or another network.
    """
    weights = read_weights(path)
    if weights.metadata.get("model") != "JointDetector" or weights.config is None:
        raise WeightsError(str(path), "is no joint detector", "choose joints.safetensors")
    network = JointDetector(**weights.config)
    load_exactly(network, weights.state, path)
    return network.to(dtype).eval().requires_grad_(False)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_layer(width, width), _layer(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _layer(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
