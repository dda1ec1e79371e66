"""Pose guiders: skeleton pictures to features that are added after the denoising network's first convolution.

`PoseGuider` is the published one: MooreThreads/Moore-AnimateAnyone @ a914ef3, layout of `pose_guider.pth` (16 keys).
`PaperPoseGuider` takes the paper at its word (Hu et al., Animate Anyone, arXiv:2311.17117): four convolutions, 4x4,
stride 2, 16 to 128 channels, Gaussian start, a projection that starts at zero.
Axes: b batch, f frames, c channels, H W pixels, h w latent pixels (H/8, W/8, rounded up).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

PUBLISHED_WIDTHS = (16, 32, 96, 256)
PAPER_WIDTHS = (16, 32, 64, 128)
GAUSSIAN_STD = 0.02
"""Spread of the paper's Gaussian start; the paper names none."""


class PoseGuider(nn.Module):
    """3x3 convolutions with SiLU, three of them halving the picture, and a projection that starts at zero.

    Args:
        out_channels: width of the denoising network's first level.
        widths: channels of the levels; the published weights have `PUBLISHED_WIDTHS`.
    """

    def __init__(self, out_channels: int = 320, widths: Sequence[int] = PUBLISHED_WIDTHS):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(widths[:-1], widths[1:], strict=True):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, stride=2, padding=1))
        self.conv_out = _zero(nn.Conv2d(widths[-1], out_channels, 3, padding=1))

    @classmethod
    def config_from(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of the guider a state dict belongs to.

        Raises:
            KeyError: the state dict is no such guider's.
        """
        count = len([key for key in state if key.startswith("blocks.") and key.endswith(".weight")])
        wide = [state[f"blocks.{index}.weight"].shape[0] for index in range(1, count, 2)]
        return {
            "out_channels": state["conv_out.weight"].shape[0],
            "widths": (state["conv_in.weight"].shape[0], *wide),
        }

    def forward(self, poses: Tensor) -> Tensor:
        """Skeleton pictures [bf 3 H W] or [b f 3 H W] in [0, 1] to pose features [bf c h w]."""
        x = F.silu(self.conv_in(_frames(poses)))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class PaperPoseGuider(nn.Module):
    """The paper's sentence, word for word; to train with, no published weights have this form.

    Four halvings give a sixteenth of the picture, but the latents it shall be added to are an eighth: the sentence
    cannot be all. Here the result is doubled (bilinear) before it is added, so each cell of the finest pose feature
    covers 16 x 16 pixels, and fine joints such as fingers are coarser than in `PoseGuider`.

    Args:
        out_channels: width of the denoising network's first level.
        widths: channels of the four levels.
    """

    def __init__(self, out_channels: int = 320, widths: Sequence[int] = PAPER_WIDTHS):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1)
            for narrow, wide in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.projection = _zero(nn.Conv2d(widths[-1], out_channels, 1))
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=GAUSSIAN_STD)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    @classmethod
    def config_from(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of the guider a state dict belongs to.

        Raises:
            KeyError: the state dict is no such guider's.
        """
        count = len([key for key in state if key.startswith("convs.") and key.endswith(".weight")])
        return {
            "out_channels": state["projection.weight"].shape[0],
            "widths": tuple(state[f"convs.{index}.weight"].shape[0] for index in range(count)),
        }

    def forward(self, poses: Tensor) -> Tensor:
        """Skeleton pictures [bf 3 H W] or [b f 3 H W] in [0, 1] to pose features [bf c h w]."""
        x = _frames(poses)
        size = tuple(-(-side // 8) for side in x.shape[-2:])
        for conv in self.convs:
            x = F.silu(conv(x))
        return F.interpolate(self.projection(x), size=size, mode="bilinear")


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `build_pose_guider` needs to build the guider a state dict belongs to.

    Raises:
        KeyError: the state dict is neither guider's.
    """
    if "convs.0.weight" in state:
        return {"form": "paper", **PaperPoseGuider.config_from(state)}
    return PoseGuider.config_from(state)


def build_pose_guider(config: Mapping[str, Any]) -> PoseGuider | PaperPoseGuider:
    """Either guider: `form` is "published" (also if left out) or "paper"; the rest are constructor arguments."""
    settings = {key: value for key, value in config.items() if key != "form"}
    guider = PaperPoseGuider if config.get("form") == "paper" else PoseGuider
    return guider(**settings)


def _frames(poses: Tensor) -> Tensor:
    return poses.flatten(0, 1) if poses.ndim == 5 else poses


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer
