"""Motion modules: transformers along the frames, pixel by pixel, that give single pictures a common motion.

Guo et al., AnimateDiff, arXiv:2307.04725, in the form of its second version (`mm_sd_v15_v2`), which Animate Anyone
trains on. Layout of `motion_module.pth` (588 keys, 28 for each of 21 modules, two of them position tables).
Axes: b rows, f frames, c channels, h w latent pixels, s h*w.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.fast_blocks import add_feed_forward, add_to, joined, piece_length
from ..models.folded_attention import temporal_self_attention
from ..models.id_adapter import AttentionKernel

HEADS = 8
MAX_FRAMES = 32
"""Entries of the published position tables; the longest window."""
NORM_GROUPS = 32
_TABLE_BASE = 10_000.0


def position_table(num_entries: int, channels: int) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of the frame number, float32 [1 num_entries channels]."""
    numbers = torch.arange(num_entries, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(_TABLE_BASE) / channels))
    return torch.stack((torch.sin(numbers * rates), torch.cos(numbers * rates)), dim=-1).flatten(1)[None]


class PositionTable(nn.Module):
    """A table that is part of the file; what is in the file counts."""

    pe: Tensor

    def __init__(self, num_entries: int, channels: int):
        super().__init__()
        self.register_buffer("pe", position_table(num_entries, channels))


class TemporalAttention(nn.Module):
    """Self-attention along the frames with its own position table; the layer around it adds the residual."""

    def __init__(self, channels: int, heads: int, max_frames: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.pos_encoder = PositionTable(max_frames, channels)

    def forward(self, normed: Tensor, kernel: AttentionKernel) -> Tensor:
        """[b f s c] to the layer's output [b f s c]; positions enter query, key and value alike."""
        positions = self.pos_encoder.pe[0, : normed.shape[1], None].to(normed)  # [f 1 c]
        return temporal_self_attention(self, add_to(normed, positions), kernel)


class TemporalBlock(nn.Module):
    """Two attentions along the frames and a feed-forward."""

    def __init__(self, channels: int, heads: int, max_frames: int, num_attentions: int):
        from diffusers.models.attention import FeedForward

        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, heads, max_frames) for _ in range(num_attentions)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_attentions))
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, kernel: AttentionKernel) -> Tensor:
        """[b f s c]. Pixels do not see each other here, so they are taken in pieces that stay in the cache."""
        return joined([self._piece(piece, kernel) for piece in x.split(piece_length(x, 2), dim=2)], 2)

    def _piece(self, x: Tensor, kernel: AttentionKernel) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = add_to(attention(norm(x), kernel), x)
        return add_feed_forward(x, self.ff_norm, self.ff)


class TemporalTransformer(nn.Module):
    """Norm, projection, blocks, projection; starts training as the identity."""

    def __init__(
        self,
        channels: int,
        heads: int,
        max_frames: int,
        num_blocks: int,
        num_attentions: int,
        norm_num_groups: int,
    ):
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, heads, max_frames, num_attentions) for _ in range(num_blocks)
        )
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)


class MotionModule(nn.Module):
    """One motion module.

    Args:
        channels: of the features it changes.
        heads: attention heads.
        max_frames: entries of the position tables.
        num_blocks: transformer blocks.
        num_attentions: attentions in each.
        norm_num_groups: of the group norm; a narrow network has fewer.
    """

    def __init__(
        self,
        channels: int,
        heads: int = HEADS,
        max_frames: int = MAX_FRAMES,
        num_blocks: int = 1,
        num_attentions: int = 2,
        norm_num_groups: int = NORM_GROUPS,
    ):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(
            channels, heads, max_frames, num_blocks, num_attentions, norm_num_groups
        )

    @property
    def max_frames(self) -> int:
        """The longest window: entries of the position tables."""
        block: Any = self.temporal_transformer.transformer_blocks[0]
        return block.attention_blocks[0].pos_encoder.pe.shape[1]

    def forward(self, x: Tensor, num_frames: int, kernel: AttentionKernel | None = None) -> Tensor:
        """Frames [bf c h w] to the same with motion, residual included.

        Args:
            x: the features, frames of a row in a row.
            num_frames: frames per row, at most `max_frames`.
            kernel: softmax attention of [b k n d] tensors to use instead of torch's.
        """
        inner: Any = self.temporal_transformer
        kernel = kernel or F.scaled_dot_product_attention
        h = inner.norm(_differentiable(x)).permute(0, 2, 3, 1).flatten(1, 2)  # [bf s c]
        h = inner.proj_in(h).unflatten(0, (-1, num_frames))  # [b f s c]
        for block in inner.transformer_blocks:
            h = block(h, kernel)
        h = inner.proj_out(h).flatten(0, 1).unflatten(1, x.shape[-2:])  # [bf h w c]
        return add_to(h.permute(0, 3, 1, 2), x)


def _differentiable(x: Tensor) -> Tensor:
    """`x`, asking for a gradient where one is recorded.

    torch 2.13 on the CPU crashes in the backward pass of a group norm in channels_last whose weights learn and whose
    input does not: as the first motion module when nothing else is trained.
    """
    return x if x.requires_grad or not torch.is_grad_enabled() else x.detach().requires_grad_()
