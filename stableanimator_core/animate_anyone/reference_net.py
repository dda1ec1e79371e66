"""ReferenceNet: a Stable Diffusion U-Net that is read, not used: its self-attentions' inputs are the result.

Paper: Hu et al., Animate Anyone, arXiv:2311.17117. Layout of `reference_unet.pth` (682 keys): the U-Net of Stable
Diffusion 1.5 without its last norm and convolution. The official code also runs it for the unconditional half and to
the end; neither is ever read, so here it runs once and stops at the last tensor stored.
Axes: r photos, s h*w, c channels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.fast_blocks import add_to, run, spatial_residual
from ..models.id_adapter import AttentionKernel
from ..models.unet import block_type, count_parts
from .attention import transformer_block
from .walk import time_embedding, transformer_block_names, walk

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

HEADS = 8
"""Attention heads of Stable Diffusion 1.5, at every level; they cannot be read from a file's shapes."""
REFERENCE_TIMESTEP = 0
_LATENT_CHANNELS = 4


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """diffusers' configuration of the Stable Diffusion U-Net that a state dict belongs to.

    Args:
        state: keys and shapes are read, so meta tensors will do; the last convolution may be missing.

    Raises:
        KeyError: the state dict is no such U-Net's.
    """
    levels = count_parts(state, "down_blocks.")
    widths = [state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    attention = [any(key.startswith(f"down_blocks.{i}.attentions.") for key in state) for i in range(levels)]
    last = state.get("conv_out.weight")
    return {
        "sample_size": None,
        "in_channels": state["conv_in.weight"].shape[1],
        "out_channels": _LATENT_CHANNELS if last is None else last.shape[0],
        "down_block_types": tuple(block_type("Down", has, "2D") for has in attention),
        "up_block_types": tuple(block_type("Up", has, "2D") for has in reversed(attention)),
        "block_out_channels": tuple(widths),
        "layers_per_block": count_parts(state, "down_blocks.0.resnets."),
        "cross_attention_dim": state["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[
            1
        ],
        "attention_head_dim": HEADS,  # diffusers' name for the number of heads
    }


def build_reference_net(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """The network, with random weights; works under `torch.device("meta")`.

    Args:
        config: keyword arguments of diffusers' UNet2DConditionModel, for example from `config_from`.
    """
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(**config)
    del net.conv_norm_out, net.conv_out
    return net


def write_reference(
    net: Any, latents: Tensor, tokens: Tensor, *, attention: AttentionKernel | None = None
) -> dict[str, Tensor]:
    """Features of the photo: the input of every self-attention, by the name of its transformer block.

    Differentiable; with gradient checkpointing where the network has it on.

    Args:
        net: from `build_reference_net`.
        latents: [r 4 h w], the VAE's posterior mean times its scaling factor.
        tokens: [r n d], the photo's CLIP token; never the unconditional zeros.
        attention: softmax attention of [b k n d] tensors to use instead of torch's.

    Returns:
        Block name -> [r s c], in the order of execution.
    """
    emb = time_embedding(net, torch.tensor([REFERENCE_TIMESTEP]), latents)
    kernel = attention or F.scaled_dot_product_attention
    writer = _Writer(emb, tokens, kernel, wanted=len(transformer_block_names(net)))
    x = net.conv_in(latents.contiguous(memory_format=torch.channels_last))
    walk(net, x, writer)
    return writer.features


@dataclass
class _Writer:
    """Runs the layers of `walk` and keeps what the transformer blocks' first norms give."""

    emb: Tensor
    tokens: Tensor
    kernel: AttentionKernel
    wanted: int
    features: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return len(self.features) >= self.wanted

    def resnet(self, block: Any, resnet: Any, x: Tensor) -> Tensor:
        return run(block, spatial_residual, resnet, x, self.emb, 1)

    def motion(self, block: Any, motion: Any, x: Tensor) -> Tensor:
        raise TypeError("a reference network has no motion modules")

    def attention(self, block: Any, name: str, attention: Any, x: Tensor) -> Tensor:
        h = enter_transformer(attention, x, num_frames=1)
        for index, layer in enumerate(attention.transformer_blocks):
            normed = layer.norm1(h)
            self.features[f"{name}.transformer_blocks.{index}"] = normed.flatten(0, 1)  # [r s c]
            if self.finished:
                return x
            h = run(block, self._rest, layer, h, normed)
        return leave_transformer(attention, h, x)

    def _rest(self, layer: Any, h: Tensor, normed: Tensor) -> Tensor:
        return transformer_block(layer, h, self.tokens, self.kernel, normed=normed)


def enter_transformer(transformer: Any, x: Tensor, num_frames: int) -> Tensor:
    """Norm and projection before a spatial transformer's blocks, [bf c h w] to [b f s c]."""
    h = transformer.proj_in(transformer.norm(x))  # [bf c h w]
    return h.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, num_frames))


def leave_transformer(transformer: Any, h: Tensor, x: Tensor) -> Tensor:
    """Projection after the blocks [b f s c], and the residual; [bf c h w]."""
    h = h.flatten(0, 1).unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
    return add_to(transformer.proj_out(h), x)
