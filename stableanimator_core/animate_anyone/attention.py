"""Spatial attention that also looks at the reference, with the work removed that cannot change its result.

The paper joins the reference's feature map to each frame's along the width, lets every position attend to every one,
and keeps the half that belongs to the frame. The other half only answers its own queries, so here queries are the
frame's alone, and keys and values are its own followed by the reference's. Those are projected once per run: they
depend neither on the frame nor on the time step. Rows without reference attend to themselves only.
Axes: b rows, f frames, s h*w, r rows of the reference, c channels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..models.fast_blocks import add_feed_forward, add_to, joined, piece_length
from ..models.folded_attention import cross_attention, spatial_self_attention
from ..models.id_adapter import AttentionKernel, attend

KeyValue = tuple[Tensor, Tensor]


class Reference:
    """What the reference network stored, and this run's keys and values made of it.

    Make one for each run: keys and values are kept at first use, where no gradient is wanted.

    Args:
        features: block name -> [r s c], from `reference_net.write_reference`; any device and dtype.
        round_to_half: pass the features through float16, as the official code does whatever its dtype.
    """

    def __init__(self, features: Mapping[str, Tensor], *, round_to_half: bool = False):
        self.features = {
            name: feature.half().to(feature.dtype) if round_to_half else feature
            for name, feature in features.items()
        }
        self._projected: dict[str, KeyValue] = {}

    def keys_and_values(self, name: str, attn: Any, like: Tensor) -> KeyValue:
        """Keys and values [r s c] of the block `name`, by the denoising network's own projections.

        Args:
            name: place of the transformer block.
            attn: its self-attention.
            like: gives device and dtype.

        Raises:
            KeyError: the reference was written by a network of another shape.
        """
        if name in self._projected and not torch.is_grad_enabled():
            return self._projected[name]
        features = self.features[name].to(like)
        projected = attn.to_k(features), attn.to_v(features)
        if not torch.is_grad_enabled():
            self._projected[name] = projected
        return projected


def transformer_block(
    block: Any,
    x: Tensor,
    tokens: Tensor,
    kernel: AttentionKernel,
    *,
    normed: Tensor | None = None,
    reference: KeyValue | None = None,
    rows: Sequence[bool] = (),
) -> Tensor:
    """Self-attention with the reference, cross-attention, feed-forward; [b f s c].

    Args:
        block: diffusers' BasicTransformerBlock.
        x: the features.
        tokens: [b n d].
        kernel: the softmax attention.
        normed: `block.norm1(x)`, if it is known.
        reference: keys and values [r s c]; r is 1 or the number of rows that see them.
        rows: whether each row of `x` sees the reference.
    """
    entering = block.norm1(x) if normed is None else normed
    attended = self_attention(block.attn1, entering, kernel, reference, rows)
    x = add_to(attended, x)
    x = add_to(x, cross_attention(block.attn2, lambda: block.norm2(x), tokens, kernel))
    flat = x.flatten(0, 2)
    pieces = [add_feed_forward(piece, block.norm3, block.ff) for piece in flat.split(piece_length(flat, 0))]
    return joined(pieces, 0).view_as(x)


def self_attention(
    attn: Any, x: Tensor, kernel: AttentionKernel, reference: KeyValue | None, rows: Sequence[bool]
) -> Tensor:
    """The layer's output [b f s c]; rows that see the reference have its keys and values after their own."""
    flat = x.flatten(0, 1)  # [bf s c]
    if reference is None or not any(rows):
        return spatial_self_attention(attn, flat, kernel).view_as(x)
    query, key, value = (project(flat).view_as(x) for project in (attn.to_q, attn.to_k, attn.to_v))
    mixed, seen = [], 0
    for sees, group in groupby(range(x.shape[0]), key=lambda row: rows[row]):
        members = list(group)
        part = slice(members[0], members[-1] + 1)
        keys, values = key[part], value[part]  # [g f s c]
        if sees:
            keys, values = (
                _followed_by(own, stored, seen) for own, stored in zip((keys, values), reference, strict=True)
            )
            seen += len(members)
        queries, keys, values = (y.flatten(0, 1) for y in (query[part], keys, values))
        mixed.append(attend(queries, keys, values, attn.heads, kernel))
    return attn.to_out[0](joined(mixed, 0)).view_as(x)


def _followed_by(own: Tensor, stored: Tensor, first: int) -> Tensor:
    """[g f s c] and the reference's rows from `first` on, [r s' c], to [g f s+s' c]."""
    if stored.shape[0] > 1:
        stored = stored[first : first + own.shape[0]]
    stored = stored[:, None].expand(own.shape[0], own.shape[1], -1, -1)
    return torch.cat((own, stored), dim=2)
