"""The denoising network as the paper and its open implementation compute it: to measure and to test ours against.

diffusers' own forward functions of every block; both guidance halves attend to their own map joined to the
reference's, the half that belongs to the frame is kept, and the unconditional half is then computed a second time
without the reference and written over. The reference is projected for every frame.
Axes: b rows, f frames, s h*w, c channels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .walk import walk


@torch.no_grad()
def denoise_literally(
    unet: Any,
    sample: Tensor,
    timestep: Tensor,
    tokens: Tensor,
    pose_features: Tensor,
    features: Mapping[str, Tensor],
) -> Tensor:
    """What `denoising_unet.denoise` gives for a guidance pair, without any of its shortcuts.

    Args:
        unet: from `build_denoising_unet`; its attention processors are replaced while this runs.
        sample: [2 f 4 h w], the unconditional row first.
        timestep: without an axis.
        tokens: [2 n d].
        pose_features: [f c h w], for both rows.
        features: block name -> [1 s c], from `reference_net.write_reference`.

    Returns:
        The v-prediction [2 f 4 h w].
    """
    frames = sample.shape[1]
    before = unet.attn_processors
    joined = {
        f"{name}.attn1.processor": _JoinedAttention(feature, frames) for name, feature in features.items()
    }
    unet.set_attn_processor({**before, **joined})
    try:
        layers = LiteralLayers(frames, time_before_silu(unet, timestep, sample), tokens)
        x = unet.conv_in(sample.flatten(0, 1)) + pose_features.repeat(2, 1, 1, 1)
        x = walk(unet, x, layers)
        return unet.conv_out(F.silu(unet.conv_norm_out(x))).unflatten(0, (2, frames))
    finally:
        unet.set_attn_processor(before)


def time_before_silu(unet: Any, timestep: Tensor, sample: Tensor) -> Tensor:
    """The time embedding before its SiLU, which diffusers' blocks apply themselves, [b 4c]."""
    times = timestep.expand(sample.shape[0])
    return unet.time_embedding(unet.time_proj(times).to(sample.dtype))


@dataclass(frozen=True)
class LiteralLayers:
    """Calls diffusers' blocks as they are; see `walk.Layers`."""

    num_frames: int
    emb: Tensor
    tokens: Tensor

    @property
    def finished(self) -> bool:
        return False

    def resnet(self, block: Any, resnet: Any, x: Tensor) -> Tensor:
        return resnet(x, self.emb.repeat_interleave(self.num_frames, dim=0))

    def attention(self, block: Any, name: str, attention: Any, x: Tensor) -> Tensor:
        tokens = self.tokens.repeat_interleave(self.num_frames, dim=0)
        return attention(x, encoder_hidden_states=tokens, return_dict=False)[0]

    def motion(self, block: Any, motion: Any, x: Tensor) -> Tensor:
        inner = motion.temporal_transformer
        h = inner.proj_in(inner.norm(x).permute(0, 2, 3, 1).flatten(1, 2))  # [bf s c]
        h = h.unflatten(0, (-1, self.num_frames)).transpose(1, 2).flatten(0, 1)  # [bs f c]
        for layer in inner.transformer_blocks:
            for norm, attn in zip(layer.norms, layer.attention_blocks, strict=True):
                h = _along_frames(attn, norm(h)) + h
            h = layer.ff(layer.ff_norm(h)) + h
        h = h.unflatten(0, (-1, x.shape[-2] * x.shape[-1])).transpose(1, 2).flatten(0, 1)  # [bf s c]
        return inner.proj_out(h).transpose(1, 2).reshape(x.shape) + x


def _along_frames(attn: Any, normed: Tensor) -> Tensor:
    x = normed + attn.pos_encoder.pe[:, : normed.shape[1]].to(normed)
    query, key, value = (_heads(project(x), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v))
    mixed = F.scaled_dot_product_attention(query, key, value)
    return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


class _JoinedAttention:
    """Processor of a self-attention: frames [2f s c] joined to the reference's map, one half kept."""

    def __init__(self, feature: Tensor, num_frames: int):
        self.feature, self.num_frames = feature, num_frames

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """diffusers' processor call."""
        reference = self.feature.to(hidden_states).expand(len(hidden_states), -1, -1)
        both = torch.cat((hidden_states, reference), dim=1)  # [2f s+s' c]
        kept = self._plain(attn, both)[:, : hidden_states.shape[1]]
        kept[: self.num_frames] = self._plain(attn, hidden_states[: self.num_frames])
        return kept

    @staticmethod
    def _plain(attn: Any, x: Tensor) -> Tensor:
        query, key, value = (_heads(project(x), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
