"""Forward functions for diffusers' spatio-temporal blocks that do the same with fewer passes over memory.

diffusers' public class stays the container: names of submodules are the checkpoint's keys and do not change
between its versions. Blocks are recognised by these names and get a subclass of their own class, so
hooks, regional compilation and gradient checkpointing work as on any module.

What is left out or merged: divisions and multiplications by 1, dropout of 0, copies between image and token
layout (channels_last throughout) and between frame and pixel order, projecting the time embedding for every
frame, and the temporal residual followed by a three-pass blend.
Axes: b batch, f frames, c channels, h w latent pixels, s h*w, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folded_attention import (
    AttentionKernel,
    add_spatial_cross_attention,
    spatial_self_attention,
    temporal_cross_attention,
    temporal_self_attention,
)
from .id_adapter import AdapterOptions


@dataclass(frozen=True)
class Conditions:
    """What every block is told besides its features.

    Attributes:
        num_frames: frames per batch row.
        emb: SiLU of the time embedding, [b 4c].
        tokens: [b n d], face tokens last.
        adapter: strength and alignment of the face branch.
        image_only: leave the temporal layers out.
        kernel: the softmax attention.
    """

    num_frames: int
    emb: Tensor
    tokens: Tensor
    adapter: AdapterOptions
    image_only: bool
    kernel: AttentionKernel


def make_fast(unet: nn.Module) -> None:
    """Give every block of `unet` the forward functions of this module."""
    for module in unet.modules():
        forward = _forward_for(module)
        if forward is not None:
            module.__class__ = _subclass(type(module), forward)


def make_plain(unet: nn.Module) -> None:
    """Undo `make_fast`."""
    for module in unet.modules():
        if is_fast(module):
            module.__class__ = type(module).__bases__[0]


def is_fast(module: nn.Module) -> bool:
    """Whether the module's forward is one of this module's."""
    return type(module).__name__.startswith(_PREFIX)


_PREFIX = "Fast"


@cache
def _subclass(base: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    return type(_PREFIX + base.__name__, (base,), {"forward": forward})


def _forward_for(module: nn.Module) -> Callable[..., Any] | None:
    """Which forward a module gets, told from the names of its submodules; None if it keeps its own."""
    children = {name for name, _ in module.named_children()}
    if is_fast(module):
        return None
    if {"spatial_res_block", "temporal_res_block", "time_mixer"} <= children:
        return residual_block
    if {"transformer_blocks", "temporal_transformer_blocks"} <= children:
        return transformer
    if {"norm_in", "ff_in", "attn1", "ff"} <= children:
        return temporal_transformer_block
    if {"norm1", "attn1", "norm2", "attn2", "ff"} <= children:
        return spatial_transformer_block
    return None


def run(parent: Any, module: Callable[..., Any], *arguments: Any) -> Any:
    """Call a block, a module or a function, with checkpointing where gradients are wanted and the parent has it on."""
    if torch.is_grad_enabled() and getattr(parent, "gradient_checkpointing", False):
        return parent._gradient_checkpointing_func(module, *arguments)
    return module(*arguments)


def residual_block(self: Any, x: Tensor, cond: Conditions) -> Tensor:
    """Spatial, then temporal residual block, blended; [bf c h w] to [bf c' h w]."""
    x = spatial_residual(self.spatial_res_block, x, cond.emb, cond.num_frames)
    if cond.image_only:
        return x
    change = _temporal_change(self.temporal_res_block, x, cond)
    # blend(x, x + change) = x + (1 - alpha) change
    return torch.addcmul(x, change, temporal_share(self.time_mixer, x))


def spatial_residual(block: Any, x: Tensor, emb: Tensor, num_frames: int) -> Tensor:
    """Residual block of pictures, [bf c h w] to [bf c' h w].

    Args:
        block: diffusers' ResnetBlock2D.
        x: the pictures.
        emb: SiLU of the time embedding, [b 4c].
        num_frames: pictures per row of `emb`.
    """
    emb = block.time_emb_proj(emb).repeat_interleave(num_frames, dim=0)[:, :, None, None]  # [bf c 1 1]
    h = block.conv1(silu(block.norm1(x)))
    h = block.conv2(silu(block.norm2(add_to(h, emb))))
    return add_to(h, x if block.conv_shortcut is None else block.conv_shortcut(x))


def _temporal_change(block: Any, x: Tensor, cond: Conditions) -> Tensor:
    """What the temporal block adds to x, [bf c h w]; its convolutions run over frames."""
    emb = block.time_emb_proj(cond.emb)[:, :, None, None, None]  # [b c 1 1 1]
    video = x.unflatten(0, (-1, cond.num_frames)).transpose(1, 2)  # [b c f h w], a view
    h = block.conv1(silu(block.norm1(video)))
    h = block.conv2(silu(block.norm2(add_to(h, emb))))
    return h.transpose(1, 2).flatten(0, 1)


def transformer(self: Any, x: Tensor, cond: Conditions) -> Tensor:
    """Spatial and temporal transformer blocks on [bf c h w]."""
    height, width = x.shape[-2:]
    h = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # [bf s c], a view if x is channels_last
    h = self.proj_in(h).unflatten(0, (-1, cond.num_frames))  # [b f s c]
    frame_emb = None if cond.image_only else _frame_embedding(self, h)
    for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
        h = run(self, spatial, h, cond)
        if frame_emb is not None:
            h = run(self, temporal, h, frame_emb, temporal_share(self.time_mixer, h), cond)
    h = self.proj_out(h).flatten(0, 1).unflatten(1, (height, width))  # [bf h w c]
    return add_to(h.permute(0, 3, 1, 2), x)


def _frame_embedding(module: Any, like: Tensor) -> Tensor:
    """Embedding of the frame numbers, [f 1 c]."""
    numbers = torch.arange(like.shape[1], device=like.device)
    return module.time_pos_embed(module.time_proj(numbers).to(like.dtype))[:, None]


def spatial_transformer_block(self: Any, x: Tensor, cond: Conditions) -> Tensor:
    """Self-attention within frames, ID adapter, feed-forward; [b f s c]."""
    attended = spatial_self_attention(self.attn1, self.norm1(x).flatten(0, 1), cond.kernel)
    x = add_to(attended.view_as(x), x)
    x = add_spatial_cross_attention(self.attn2, self.norm2, x, cond.tokens, cond.adapter)
    rows = x.flatten(0, 2)
    pieces = [add_feed_forward(piece, self.norm3, self.ff) for piece in rows.split(piece_length(rows, 0))]
    return joined(pieces, 0).view_as(x)


def temporal_transformer_block(
    self: Any, x: Tensor, frame_emb: Tensor, share: Tensor, cond: Conditions
) -> Tensor:
    """Feed-forward, attention along frames, image tokens, feed-forward, blended with its input; [b f s c].

    Pixels do not see each other here, so they are taken in pieces that stay in the cache.
    """
    pieces = [
        torch.lerp(piece, _temporal_layers(self, piece + frame_emb, cond), share)
        for piece in x.split(piece_length(x, 2), dim=2)
    ]
    return joined(pieces, 2)


def _temporal_layers(block: Any, x: Tensor, cond: Conditions) -> Tensor:
    x = add_feed_forward(x, block.norm_in, block.ff_in)
    x = add_to(temporal_self_attention(block.attn1, block.norm1(x), cond.kernel), x)
    x = x + temporal_cross_attention(block.attn2, lambda: block.norm2(x), cond.tokens, cond.kernel)
    return add_feed_forward(x, block.norm3, block.ff)


def add_feed_forward(x: Tensor, norm: Any, ff: Any) -> Tensor:
    """x + GEGLU feed-forward of norm(x), over the last axis."""
    value, gate = ff.net[0].proj(norm(x)).chunk(2, dim=-1)
    hidden = value * F.gelu(gate) if torch.is_grad_enabled() else F.gelu(gate).mul_(value)
    return add_to(ff.net[2](hidden), x)


PIECE_BYTES = {"cpu": 4 << 20}
OTHER_PIECE_BYTES = 512 << 20
"""How large the widest intermediate of a feed-forward may get: on a CPU it should stay in the cache."""


def piece_length(x: Tensor, axis: int) -> int:
    """How many steps of `axis` to take at a time through a feed-forward, which widens [... c] to [... 8c]."""
    if torch.is_grad_enabled():
        return x.shape[axis]
    step = 8 * x.numel() * x.element_size() // x.shape[axis]
    return max(1, PIECE_BYTES.get(x.device.type, OTHER_PIECE_BYTES) // step)


def joined(pieces: list[Tensor], axis: int) -> Tensor:
    """What was taken in pieces, in one."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)


def temporal_share(mixer: Any, like: Tensor) -> Tensor:
    """1 - sigmoid(mix_factor), [1]: the temporal branch's weight; the bare parameter may lie elsewhere."""
    return torch.sigmoid(-mixer.mix_factor.to(device=like.device, dtype=torch.float32)).to(like.dtype)


def add_to(fresh: Tensor, other: Tensor) -> Tensor:
    """Sum; written over `fresh`, a tensor nobody else holds, where no gradient needs it."""
    return fresh + other if torch.is_grad_enabled() else fresh.add_(other)


def silu(fresh: Tensor) -> Tensor:
    """SiLU; written over `fresh` as `add_to` does."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())
