"""Distribution-aware ID adapter: cross-attention to face tokens with the image branch's mean and spread.

Paper: Tu et al., StableAnimator, arXiv:2411.17697, section 3.3.
Code: `animation/modules/attention_processor_normalized.py`, Francis-Rings/StableAnimator @ 020e7f2.

The processors here say what is computed, in the form of the published code; they plug into diffusers'
attention layers. `folded_attention.py` computes the same with less work and is what runs by default.
Axes: b batch, f frames, s h*w pixels, c channels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_TOKENS = 4
"""The last tokens of every context are the face tokens; those before are CLIP image tokens."""
STD_GUARD = 1e-5
"""Added to the face branch's deviation, and to that one only."""

Alignment = Literal["full", "mean", "none"]

AttentionKernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query, key, value, each [b k n d], to their softmax attention [b k n d]."""


@dataclass(frozen=True)
class AdapterOptions:
    """How the face branch joins the image branch.

    Attributes:
        strength: factor of the face branch; 1 is the published value, 0 leaves the branch out.
        alignment: "full" gives the face branch the image branch's mean and deviation (published), "mean" only
            the mean, "none" leaves it as it is.
    """

    strength: float = 1.0
    alignment: Alignment = "full"


def align_distribution(face: Tensor, image: Tensor, mode: Alignment = "full") -> Tensor:
    """Give `face` [b s c] the mean and deviation that `image` [b s c] has over all its tokens and channels.

    Statistics are float32, the deviation is unbiased.
    """
    if mode == "none":
        return face
    face_std, face_mean = torch.std_mean(face.float(), dim=(1, 2), keepdim=True)  # each [b 1 1]
    image_std, image_mean = torch.std_mean(image.float(), dim=(1, 2), keepdim=True)
    gain = alignment_gain(face_std, image_std, mode)
    return ((face.float() - face_mean) * gain + image_mean).to(face.dtype)


def alignment_gain(face_std: Tensor, image_std: Tensor, mode: Alignment) -> Tensor:
    """What the centred face branch is multiplied by; 0 where the image branch does not vary at all."""
    return image_std / (face_std + STD_GUARD) if mode == "full" else torch.ones_like(face_std)


class IDAdapter(nn.Module):
    """Processor of one spatial cross-attention: image tokens and face tokens answer the same query apart.

    Args:
        channels: width of the attention layer.
        token_width: width of the tokens.
    """

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        self.id_to_k = nn.Linear(token_width, channels, bias=False)
        self.id_to_v = nn.Linear(token_width, channels, bias=False)
        self.options = AdapterOptions()

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """diffusers' processor call: pixels [bf s c] and tokens [bf n d] to the layer's output [bf s c]."""
        return id_attention(attn, hidden_states, _needed(encoder_hidden_states), self.options)


class ImageTokensOnly:
    """Processor of a temporal cross-attention: it never sees the face tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """diffusers' processor call: [bs f c] and tokens [bs n d] to the layer's output [bs f c]."""
        tokens = _needed(encoder_hidden_states)[:, :-FACE_TOKENS]
        query = attn.to_q(hidden_states)
        return attn.to_out[0](attend(query, attn.to_k(tokens), attn.to_v(tokens), attn.heads))


def id_attention(attn: Any, hidden_states: Tensor, tokens: Tensor, options: AdapterOptions) -> Tensor:
    """The adapter's cross-attention, literally: pixels [b s c] ask any number of tokens [b n d]."""
    image_tokens, face_tokens = tokens[:, :-FACE_TOKENS], tokens[:, -FACE_TOKENS:]
    query = attn.to_q(hidden_states)
    mixed = attend(query, attn.to_k(image_tokens), attn.to_v(image_tokens), attn.heads)
    if options.strength != 0:
        adapter = attn.processor
        face = attend(query, adapter.id_to_k(face_tokens), adapter.id_to_v(face_tokens), attn.heads)
        mixed = mixed + options.strength * align_distribution(face, mixed, options.alignment)
    return attn.to_out[0](mixed)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, kernel: AttentionKernel | None = None
) -> Tensor:
    """Softmax attention of [b s c] over [b n c], c split into `heads`; by torch, or by another kernel."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    kernel = kernel or F.scaled_dot_product_attention
    return kernel(query, key, value).transpose(1, 2).flatten(2)


def _needed(tokens: Tensor | None) -> Tensor:
    if tokens is None:
        raise TypeError("cross-attention with the ID adapter needs encoder_hidden_states")
    return tokens
