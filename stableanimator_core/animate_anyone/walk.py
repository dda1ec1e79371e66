"""The order in which a Stable Diffusion U-Net's layers meet, told once for both networks.

diffusers' UNet2DConditionModel is the container, so the keys are those of the published files; motion modules, where
there are any, are lists beside each block's `attentions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Layers(Protocol):
    """What is done at each kind of layer; every method takes and gives [bf c h w]."""

    @property
    def finished(self) -> bool:
        """Whether nothing that follows is needed."""
        ...

    def resnet(self, block: Any, resnet: Any, x: Tensor) -> Tensor:
        """A residual block of `block`."""
        ...

    def attention(self, block: Any, name: str, attention: Any, x: Tensor) -> Tensor:
        """A spatial transformer of `block`; `name` is its place in the network."""
        ...

    def motion(self, block: Any, motion: Any, x: Tensor) -> Tensor:
        """A motion module of `block`."""
        ...


def walk(unet: Any, x: Tensor, layers: Layers) -> Tensor:
    """Down, middle and up from `x` [bf c h w], which has passed the first convolution; ends where `layers` do."""
    skips = [x]
    for number, block in enumerate(unet.down_blocks):
        for index in range(len(block.resnets)):
            x = _layer(block, f"down_blocks.{number}", index, x, layers)
            skips.append(x)
        for downsampler in block.downsamplers or ():
            x = downsampler(x)
            skips.append(x)
    x = _middle(unet.mid_block, x, layers)
    for number, block in enumerate(unet.up_blocks):
        for index in range(len(block.resnets)):
            x = _layer(block, f"up_blocks.{number}", index, torch.cat((x, skips.pop()), dim=1), layers)
            if layers.finished:
                return x
        for upsampler in block.upsamplers or ():
            x = upsampler(x, skips[-1].shape[-2:])  # the skip's size: halving rounds up
    return x


def transformer_block_names(unet: nn.Module) -> list[str]:
    """Names of all spatial transformer blocks in the order of execution, as `Reference` knows them."""
    names = [name for name, _ in unet.named_modules() if ".attentions." in name and _is_block(name)]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}  # modules are registered down, up, middle
    return sorted(names, key=lambda name: order[name.split(".")[0]])


def motion_modules(unet: Any) -> Iterator[Any]:
    """All motion modules; none in the reference network and in training stage 1."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        yield from _motions(block)


def time_embedding(unet: Any, timestep: Tensor, like: Tensor) -> Tensor:
    """SiLU of the time embedding [b 4c] of times [b], or one for all, in dtype and on the device of `like` [b ...]."""
    times = timestep.to(like.device).expand(like.shape[0])
    return nn.functional.silu(unet.time_embedding(unet.time_proj(times).to(like.dtype)))


def _layer(block: Any, prefix: str, index: int, x: Tensor, layers: Layers) -> Tensor:
    x = layers.resnet(block, block.resnets[index], x)
    attentions, motions = _attentions(block), _motions(block)
    if attentions:
        x = layers.attention(block, f"{prefix}.attentions.{index}", attentions[index], x)
    if motions and not layers.finished:
        x = layers.motion(block, motions[index], x)
    return x


def _middle(block: Any, x: Tensor, layers: Layers) -> Tensor:
    x = layers.resnet(block, block.resnets[0], x)
    for index, (attention, resnet) in enumerate(zip(block.attentions, block.resnets[1:], strict=True)):
        x = layers.attention(block, f"mid_block.attentions.{index}", attention, x)
        for motion in list(_motions(block))[index : index + 1]:
            x = layers.motion(block, motion, x)
        x = layers.resnet(block, resnet, x)
    return x


def _attentions(block: Any) -> Any:
    return getattr(block, "attentions", None) or ()


def _motions(block: Any) -> Any:
    return getattr(block, "motion_modules", None) or ()


def _is_block(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 2 and parts[-2] == "transformer_blocks"
