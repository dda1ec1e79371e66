"""PoseNet: skeleton pictures to features that are added after the U-Net's first convolution.

Paper: Tu et al., StableAnimator, arXiv:2411.17697, section 3.1.
Layout of `pose_net.pth` (19 keys): `animation/modules/pose_net.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: b batch, f frames, c channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, ones

POSE_SCALE_AT_START = 2.0
"""What the learned output scale starts training from."""

# (input channels, output channels, kernel, stride) of each 1-padded convolution; three strides of 2 give 1/8
_CONVOLUTIONS = (
    (3, 3, 3, 1),
    (3, 16, 4, 2),
    (16, 16, 3, 1),
    (16, 32, 4, 2),
    (32, 32, 3, 1),
    (32, 64, 4, 2),
    (64, 64, 3, 1),
    (64, 128, 3, 1),
)


class PoseNet(nn.Module):
    """Eight convolutions with SiLU, a 1x1 projection and one learned scale.

    Args:
        out_channels: width of the U-Net's first level.
    """

    def __init__(self, out_channels: int = 320):
        super().__init__()
        self.conv_layers = nn.Sequential()  # convolutions at 0, 2, 4 ...; the checkpoint numbers them so
        for channels_in, channels_out, kernel, stride in _CONVOLUTIONS:
            self.conv_layers.append(nn.Conv2d(channels_in, channels_out, kernel, stride, padding=1))
            self.conv_layers.append(nn.SiLU())
        self.final_proj = nn.Conv2d(_CONVOLUTIONS[-1][1], out_channels, 1)
        self.scale = nn.Parameter(ones(1) * POSE_SCALE_AT_START)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He normal filters (variance 2 / fan in), the rest zero: training starts without pose."""
        for module in self.conv_layers:
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.final_proj.weight)
        nn.init.zeros_(self.final_proj.bias)  # pyright: ignore[reportArgumentType]

    @classmethod
    def config_from(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of the network a state dict belongs to.

        Raises:
            KeyError: the state dict is no PoseNet's.
        """
        return {"out_channels": state["final_proj.weight"].shape[0]}

    def forward(self, poses: Tensor) -> Tensor:
        """Skeleton pictures [bf 3 H W] or [b f 3 H W] in [-1, 1] to pose features [bf c H/8 W/8]."""
        x = poses.flatten(0, 1) if poses.ndim == 5 else poses
        for layer in self.conv_layers:
            x = layer(x) if isinstance(layer, nn.Conv2d) else F.silu(x)
        return self.final_proj(x) * self.scale.to(device=x.device, dtype=x.dtype)
