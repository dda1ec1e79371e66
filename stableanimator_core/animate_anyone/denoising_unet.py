"""The denoising network: Stable Diffusion's U-Net over frames, that looks at the reference, with motion modules.

Paper: Hu et al., Animate Anyone, arXiv:2311.17117. Layout of `denoising_unet.pth` (686 keys, Stable Diffusion 1.5's)
and `motion_module.pth` (588), MooreThreads/Moore-AnimateAnyone @ a914ef3; together they are one network here.
Norms and convolutions see one frame at a time, so frames lie in the batch axis; only motion modules join them.
Axes: b rows, f frames, c channels, h w latent pixels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models.fast_blocks import run, silu, spatial_residual
from ..models.id_adapter import AttentionKernel
from . import reference_net
from .attention import Reference, transformer_block
from .motion_file import settings_of
from .motion_module import HEADS, MAX_FRAMES, MotionModule
from .reference_net import enter_transformer, leave_transformer
from .walk import motion_modules, time_embedding, walk

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

MOTION = "motion"
"""Entry of the configuration that describes the motion modules; without it there are none (training stage 1)."""


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of the network a state dict belongs to, with motion modules if it has any.

    Args:
        state: keys and shapes are read, so meta tensors will do.

    Raises:
        KeyError: the state dict is no such network's.
    """
    config = reference_net.config_from(state)
    if not any(".motion_modules." in key for key in state):
        return config
    mid_block = any(key.startswith("mid_block.motion_modules.") for key in state)
    config[MOTION] = {**settings_of(state), "mid_block": mid_block}
    return config


def build_denoising_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """The network, with random weights; works under `torch.device("meta")`.

    Args:
        config: keyword arguments of diffusers' UNet2DConditionModel, and under "motion" those of the motion modules:
            heads, max_frames, num_blocks, num_attentions, norm_num_groups, mid_block; all may be left out.
    """
    from diffusers import UNet2DConditionModel

    plain = {key: value for key, value in config.items() if key != MOTION}
    unet = UNet2DConditionModel(**plain)
    if config.get(MOTION) is not None:
        add_motion_modules(unet, **config[MOTION])
    return unet


def add_motion_modules(unet: Any, *, mid_block: bool = True, **settings: int) -> None:
    """Give every layer of a U-Net its motion module, which changes nothing until it is trained or loaded.

    Args:
        unet: without motion modules.
        mid_block: also one in the middle, as in AnimateDiff's second version.
        settings: heads, max_frames, num_blocks, num_attentions, norm_num_groups of `MotionModule`; the groups of the
            norms are the U-Net's if left out.
    """
    settings = {"norm_num_groups": unet.config.norm_num_groups, **settings}
    for block in (*unet.down_blocks, *unet.up_blocks):
        widths = [resnet.conv2.out_channels for resnet in block.resnets]
        block.motion_modules = nn.ModuleList(MotionModule(width, **settings) for width in widths)
    if mid_block:
        width = unet.mid_block.resnets[0].conv2.out_channels
        unet.mid_block.motion_modules = nn.ModuleList([MotionModule(width, **settings)])
    full = {"heads": HEADS, "max_frames": MAX_FRAMES, **settings, "mid_block": mid_block}
    unet.register_to_config(**{MOTION: full})


def longest_window(unet: Any) -> int | None:
    """Frames the network can denoise together; None if it has no motion modules and knows no limit."""
    return min((module.max_frames for module in motion_modules(unet)), default=None)


def check_window(unet: Any, num_frames: int) -> None:
    """Refuse more frames at a time than the position tables have entries.

    Raises:
        InputError: names the longest window that fits.
    """
    longest = longest_window(unet)
    if longest is not None and num_frames > longest:
        raise InputError(
            "window_size",
            f"is {num_frames} frames, the motion modules know {longest} positions",
            f"use {longest} or fewer; longer clips are made of several windows",
        )


def denoise(
    unet: Any,
    sample: Tensor,
    timestep: Tensor,
    tokens: Tensor,
    *,
    pose_features: Tensor | None = None,
    reference: Reference | None = None,
    reference_rows: Sequence[bool] | None = None,
    attention: AttentionKernel | None = None,
) -> Tensor:
    """One prediction of the network. Differentiable; with gradient checkpointing where the network has it on.

    For guidance give two rows: zero tokens first, then the photo's; the pose in both, the reference in the second
    only (`reference_rows=(False, True)`).

    Args:
        unet: from `build_denoising_unet`.
        sample: [b f 4 h w], noisy latents.
        timestep: 0..999, [b] or without an axis.
        tokens: [b n d], usually the photo's one CLIP token; zeros are unconditional.
        pose_features: [bf c h w] from the pose guider, added after the first convolution, or [f c h w] for all rows.
        reference: from `reference_net.write_reference`; one photo for all rows that see it, or one for each of them.
        reference_rows: which rows see the reference; all if left out.
        attention: softmax attention of [b k n d] tensors to use instead of torch's.

    Returns:
        The v-prediction [b f 4 h w].

    Raises:
        InputError: more frames than the motion modules have positions for.
    """
    batch, frames = sample.shape[:2]
    check_window(unet, frames)
    rows = (True,) * batch if reference_rows is None else tuple(reference_rows)
    emb = time_embedding(unet, timestep, sample)
    kernel = attention or F.scaled_dot_product_attention
    reader = FrameLayers(frames, emb, tokens, kernel, reference, rows)
    x = unet.conv_in(sample.flatten(0, 1).contiguous(memory_format=torch.channels_last))  # [bf c h w]
    if pose_features is not None:
        x = x + _for_all_rows(pose_features, batch * frames)
    x = walk(unet, x, reader)
    x = unet.conv_out(silu(unet.conv_norm_out(x)))
    return x.unflatten(0, (batch, frames))


@dataclass(frozen=True)
class FrameLayers:
    """Runs the layers of `walk` on frames, with the reference in the self-attentions."""

    num_frames: int
    emb: Tensor
    tokens: Tensor
    kernel: AttentionKernel
    reference: Reference | None
    rows: tuple[bool, ...]

    @property
    def finished(self) -> bool:
        return False

    def resnet(self, block: Any, resnet: Any, x: Tensor) -> Tensor:
        return run(block, spatial_residual, resnet, x, self.emb, self.num_frames)

    def motion(self, block: Any, motion: Any, x: Tensor) -> Tensor:
        return run(block, motion, x, self.num_frames, self.kernel)

    def attention(self, block: Any, name: str, attention: Any, x: Tensor) -> Tensor:
        h = enter_transformer(attention, x, self.num_frames)
        for index, layer in enumerate(attention.transformer_blocks):
            h = run(block, self._block, f"{name}.transformer_blocks.{index}", layer, h)
        return leave_transformer(attention, h, x)

    def _block(self, name: str, layer: Any, h: Tensor) -> Tensor:
        known = None
        if self.reference is not None and any(self.rows):
            known = self.reference.keys_and_values(name, layer.attn1, h)
        return transformer_block(layer, h, self.tokens, self.kernel, reference=known, rows=self.rows)


def _for_all_rows(features: Tensor, total: int) -> Tensor:
    """[f c h w] repeated for each row, or [bf c h w] as it is."""
    return features if features.shape[0] == total else features.repeat(total // features.shape[0], 1, 1, 1)
