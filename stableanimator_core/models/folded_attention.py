"""The U-Net's three attentions with the work removed that cannot change their result.

Facts used, each exact up to rounding:
- one image token: softmax over one key is 1, so the output is one vector for all pixels and frames;
- four face tokens: scores need only W_q K (c x 4 heads), the output only V W_o (4 heads x c);
- the mean and deviation of the face branch over all pixels and channels follow from the sums of its attention
  weights, the sums of their products, and the 4 x 4 Gram matrices of its values: it is never written out.

Layers are always called, never read: their weights may be stored in another type, elsewhere, or patched.
Axes: b batch, f frames, s h*w pixels, c channels, n tokens, d token width, k heads, j face tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .id_adapter import (
    FACE_TOKENS,
    AdapterOptions,
    AttentionKernel,
    alignment_gain,
    attend,
    id_attention,
)

FOLD_QUERY_FROM = 2
"""The query projection is folded where there are at least this many times more pixels than channels."""
SMALLEST_SCALE = 1e-6
"""Face values smaller than this are not brought to unit size."""


def spatial_self_attention(attn: Any, x: Tensor, kernel: AttentionKernel) -> Tensor:
    """Pixels [bf s c] ask the pixels of their own frame; returns the layer's output [bf s c]."""
    return attn.to_out[0](attend(attn.to_q(x), attn.to_k(x), attn.to_v(x), attn.heads, kernel))


def temporal_self_attention(attn: Any, x: Tensor, kernel: AttentionKernel) -> Tensor:
    """Frames ask the frames of their own pixel; [b f s c] to the layer's output [b f s c].

    The kernel sees strided views [s k f d] of each batch row, so nothing is copied to bring frames together.
    """
    if x.device.type == "cpu":
        kernel = _small_attention
    query, key, value = (
        project(x).unflatten(-1, (attn.heads, -1)).permute(0, 2, 3, 1, 4)
        for project in (attn.to_q, attn.to_k, attn.to_v)
    )
    rows = [kernel(query[i], key[i], value[i]) for i in range(x.shape[0])]  # each [s k f d]
    mixed = torch.stack([row.permute(2, 0, 1, 3).flatten(2) for row in rows])  # [b f s c]
    return attn.to_out[0](mixed)


def _small_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of many short sequences; twice as fast on a CPU as the fused kernel, made for long ones."""
    weights = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2)).softmax(dim=-1)
    return torch.matmul(weights, value)


def temporal_cross_attention(
    attn: Any, normed: Callable[[], Tensor], tokens: Tensor, kernel: AttentionKernel
) -> Tensor:
    """`cross_attention` to the image tokens of [b n d]: the face tokens, which are last, are left out."""
    return cross_attention(attn, normed, tokens[:, :-FACE_TOKENS], kernel)


def cross_attention(
    attn: Any, normed: Callable[[], Tensor], tokens: Tensor, kernel: AttentionKernel
) -> Tensor:
    """What frames and pixels [b f s c] get from tokens.

    Args:
        attn: the attention layer.
        normed: gives the normalised queries' input [b f s c]; not called for one token.
        tokens: [b n d].
        kernel: the softmax attention.

    Returns:
        The layer's output, [b 1 1 c] for one token, else [b f s c].
    """
    if tokens.shape[1] == 1:
        return attn.to_out[0](attn.to_v(tokens))[:, None]
    x = normed()
    query = attn.to_q(x.flatten(1, 2))
    mixed = attend(query, attn.to_k(tokens), attn.to_v(tokens), attn.heads, kernel)  # [b fs c]
    return attn.to_out[0](mixed).unflatten(1, x.shape[1:3])


def add_spatial_cross_attention(
    attn: Any, norm: Callable[[Tensor], Tensor], x: Tensor, tokens: Tensor, options: AdapterOptions
) -> Tensor:
    """x plus the ID adapter's cross-attention of norm(x).

    Args:
        attn: the attention layer; its processor is the ID adapter.
        norm: the layer norm before it.
        x: [b f s c].
        tokens: [b n d], face tokens last.
        options: strength and alignment of the face branch.
    """
    if tokens.shape[1] > FACE_TOKENS + 1:
        per_frame = tokens.repeat_interleave(x.shape[1], dim=0)
        return x + id_attention(attn, norm(x).flatten(0, 1), per_frame, options).view_as(x)
    if options.strength == 0:
        return x + attn.to_out[0](attn.to_v(tokens[:, :1]))[:, None]
    return _add_folded_face_branch(attn, norm(x), x, tokens, options)


def _add_folded_face_branch(
    attn: Any, normed: Tensor, x: Tensor, tokens: Tensor, options: AdapterOptions
) -> Tensor:
    batch, frames, pixels, channels = x.shape
    image_value = attn.to_v(tokens[:, :1])  # [b 1 c]
    face_tokens = tokens[:, -FACE_TOKENS:]
    value = attn.processor.id_to_v(face_tokens).float()  # [b j c]
    mean = value.mean(dim=(1, 2), keepdim=True)
    # Any scale gives the same result; this one keeps small values from vanishing in half precision.
    scale = value.detach().std(dim=(1, 2), keepdim=True).clamp_min(SMALLEST_SCALE)
    value = (value - mean) / scale

    weights = _face_weights(attn, normed, face_tokens)  # [b fs kj], float32
    moments = _face_moments(weights.view(batch * frames, pixels, -1), value, attn.heads, frames)
    gain, offset = _gain_and_offset(moments, (mean, scale), image_value.float(), frames, pixels, options)

    rows = torch.cat((image_value, torch.ones_like(image_value), torch.zeros_like(image_value)), dim=1)
    rows = torch.cat((by_head(value, attn.heads).to(x.dtype), rows), dim=1)  # [b kj+3 c]
    rows = attn.to_out[0](rows)
    bias = rows[:, -1:]
    out = torch.cat((rows[:, :-3] - bias, rows[:, -2:-1] - bias, rows[:, -3:-2]), dim=1)  # [b kj+2 c]

    factors = weights.unflatten(1, (frames, pixels)) * gain
    per_pixel = offset.expand(batch, frames, pixels, 1)
    factors = torch.cat((factors, per_pixel, torch.ones_like(per_pixel)), dim=-1).to(x.dtype)  # [b f s kj+2]
    return torch.baddbmm(x.flatten(1, 2), factors.flatten(1, 2), out).view_as(x)


def _face_weights(attn: Any, normed: Tensor, face_tokens: Tensor) -> Tensor:
    """Attention weights [b fs kj] (heads first, then tokens) of every pixel over the face tokens, float32."""
    batch, frames, pixels, channels = normed.shape
    key = attn.processor.id_to_k(face_tokens) * (channels // attn.heads) ** -0.5
    to_scores = by_head(key, attn.heads).transpose(1, 2)  # [b c kj]
    x = normed.flatten(1, 2)
    if batch * frames * pixels >= FOLD_QUERY_FROM * channels:
        identity = torch.eye(channels, device=x.device, dtype=x.dtype)
        to_scores = attn.to_q(identity) @ to_scores
    else:
        x = attn.to_q(x)
    scores = torch.bmm(x, to_scores).unflatten(-1, (attn.heads, FACE_TOKENS))
    return scores.softmax(dim=-1, dtype=torch.float32).flatten(2)


def _face_moments(weights: Tensor, value: Tensor, heads: int, frames: int) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation, each [b f 1 1], of the face branch over pixels and channels of a frame.

    Args:
        weights: attention weights [bf s kj].
        value: centred and scaled face values [b j c].
        heads: attention heads.
        frames: frames per batch row.
    """
    batch, _, channels = value.shape
    count = weights.shape[1] * channels
    by_heads = value.unflatten(-1, (heads, -1)).permute(0, 2, 1, 3)[:, None]  # [b 1 k j c/k]
    sums = weights.sum(dim=1).view(batch, frames, heads, FACE_TOKENS, 1)
    mean = (sums * by_heads.sum(dim=-1, keepdim=True)).sum(dim=(2, 3, 4), keepdim=True) / count  # [b f 1 1 1]
    centred = by_heads - mean  # weights of a head sum to 1, so this centres the branch itself
    gram = centred @ centred.transpose(-1, -2)  # [b f k j j]
    products = torch.bmm(weights.transpose(1, 2), weights).view(
        batch, frames, heads, FACE_TOKENS, heads, FACE_TOKENS
    )
    products = products.diagonal(dim1=2, dim2=4)  # [b f j j k]
    variance = (products * gram.permute(0, 1, 3, 4, 2)).sum(dim=(2, 3, 4)) / (count - 1)
    std = variance.clamp_min(1e-30).sqrt()  # the root of 0 has no gradient, of the clamp it is 0
    return mean[..., 0], std[..., None, None]


def _gain_and_offset(
    moments: tuple[Tensor, Tensor],
    value_moments: tuple[Tensor, Tensor],
    image_value: Tensor,
    frames: int,
    pixels: int,
    options: AdapterOptions,
) -> tuple[Tensor, Tensor]:
    """Per frame [b f 1 1]: the aligned face branch is gain * (scaled branch) + offset, strength included."""
    scaled_mean, scaled_std = moments
    value_mean, value_scale = (x[..., None] for x in value_moments)  # [b 1 1 1]
    if options.alignment == "none":
        gain, offset = value_scale.expand_as(scaled_mean), value_mean.expand_as(scaled_mean)
    else:
        count = pixels * image_value.shape[-1]
        image_mean = image_value.mean(dim=(1, 2))[:, None, None, None]
        image_std = (
            image_value.std(dim=(1, 2), correction=0)[:, None, None, None] * (count / (count - 1)) ** 0.5
        )
        gain = value_scale * alignment_gain(value_scale * scaled_std, image_std, options.alignment)
        offset = image_mean - gain * scaled_mean
    return options.strength * gain, options.strength * offset


def by_head(x: Tensor, heads: int) -> Tensor:
    """[b j c] to [b kj c]: each token once per head, zero outside that head's channels."""
    width = x.shape[-1] // heads
    mask = torch.eye(heads, device=x.device, dtype=x.dtype).repeat_interleave(width, dim=1)  # [k c]
    return (x[:, None] * mask[:, None]).flatten(1, 2)
