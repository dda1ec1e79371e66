"""IResNet: the ArcFace recognition network in torch, for losses that need its gradient.

Paper: Deng et al., ArcFace, arXiv:1801.07698; Duta et al., Improved Residual Networks, arXiv:2004.04989.
Layout of `glintr100_torch.pth` (925 keys): `recognition/arcface_torch/backbones/iresnet.py` of
deepinsight/insightface.
Axes: b batch, c channels, H W pixels, e identity embedding (512).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

FACE_SIZE = 112
"""Side of the square face picture the published network takes, in pixels."""


class IResNetBlock(nn.Module):
    """Norm, convolution, norm, PReLU, convolution, norm; plus the input, projected if the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """Face picture to ArcFace vector; the defaults are IResNet-100.

    Args:
        layers: blocks per level; each level halves the picture.
        widths: channels per level.
        stem_width: channels of the first convolution.
        embedding_width: length of the vector.
        face_size: side of the input in pixels.
    """

    def __init__(
        self,
        layers: Sequence[int] = (3, 13, 30, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        embedding_width: int = 512,
        face_size: int = FACE_SIZE,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.prelu = nn.PReLU(stem_width)
        self.num_levels = len(layers)
        channels = stem_width
        for level, (depth, width) in enumerate(zip(layers, widths, strict=True), start=1):
            blocks = [
                IResNetBlock(channels, width, 2),
                *(IResNetBlock(width, width, 1) for _ in range(depth - 1)),
            ]
            self.add_module(f"layer{level}", nn.Sequential(*blocks))
            channels = width
        side = face_size
        for _ in layers:
            side = (side + 1) // 2
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * side * side, embedding_width)
        self.features = nn.BatchNorm1d(embedding_width)
        self.features.weight.requires_grad_(False)  # ArcFace keeps the last gain at 1

    @classmethod
    def config_from(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of the network a state dict belongs to, any depth and width.

        Raises:
            KeyError: the state dict is no IResNet's.
        """
        num_levels = len({key.split(".")[0] for key in state if key.startswith("layer")})
        levels = [f"layer{level}." for level in range(1, num_levels + 1)]
        depths = [len({key.split(".")[1] for key in state if key.startswith(level)}) for level in levels]
        widths = [state[f"{level}0.conv2.weight"].shape[0] for level in levels]
        last_side = round((state["fc.weight"].shape[1] / widths[-1]) ** 0.5)
        return {
            "layers": tuple(depths),
            "widths": tuple(widths),
            "stem_width": state["conv1.weight"].shape[0],
            "embedding_width": state["fc.weight"].shape[0],
            "face_size": last_side * 2**num_levels,
        }

    def forward(self, faces: Tensor) -> Tensor:
        """Face pictures [b 3 112 112], RGB in [-1, 1], to identities [b e], not normalised."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        for level in range(1, self.num_levels + 1):
            x = self.get_submodule(f"layer{level}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))
