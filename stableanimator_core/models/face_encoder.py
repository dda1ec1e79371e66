"""Global content-aware Face Encoder: an ArcFace vector becomes four tokens that know the whole picture.

Paper: Tu et al., StableAnimator, arXiv:2411.17697, section 3.2.
Layout of `face_encoder.pth` (56 keys): `animation/modules/id_encoder.py`, Francis-Rings/StableAnimator
@ 020e7f2; the perceiver attention is that of IP-Adapter's Resampler.
Axes: b batch, n tokens, d token width, e identity embedding (512).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64


class PerceiverAttention(nn.Module):
    """Face tokens ask; picture tokens and the face tokens themselves answer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        inner = heads * HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, picture: Tensor, face: Tensor) -> Tensor:
        """Picture tokens [b n d] and face tokens [b m d] to a change of the face tokens [b m d]."""
        picture, face = self.norm1(picture), self.norm2(face)
        query = self.to_q(face)
        key, value = self.to_kv(torch.cat((picture, face), dim=1)).chunk(2, dim=-1)
        query, key, value = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)  # [b heads m 64]
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class FacePerceiver(nn.Module):
    """A stack of perceiver attention and feed-forward layers."""

    def __init__(self, width: int, picture_width: int, depth: int, heads: int, ff_mult: int):
        super().__init__()
        self.proj_in = nn.Linear(picture_width, width)
        self.layers = nn.ModuleList(
            nn.ModuleList((PerceiverAttention(width, heads), _feed_forward(width, ff_mult * width)))
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        nn.init.zeros_(self.proj_out.weight)  # training starts from face tokens of zero
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, face: Tensor, picture: Tensor) -> Tensor:
        """Face tokens [b m d] that have looked at the picture tokens [b n p]."""
        picture = self.proj_in(picture)
        for attention, feed_forward in self.layers:  # pyright: ignore[reportGeneralTypeIssues]
            face = attention(picture, face) + face
            face = feed_forward(face) + face
        return self.norm_out(self.proj_out(face))


class FaceEncoder(nn.Module):
    """ArcFace vector and CLIP token to face tokens.

    Args:
        token_width: width of the U-Net's cross-attention tokens.
        identity_width: length of the ArcFace vector.
        image_width: width of the CLIP token.
        num_tokens: face tokens made from one vector.
        depth: perceiver layers.
        heads: attention heads of 64; token_width / 64 if left out.
        ff_mult: feed-forward width over token width.
    """

    def __init__(
        self,
        token_width: int = 1024,
        identity_width: int = 512,
        image_width: int = 1024,
        num_tokens: int = 4,
        depth: int = 4,
        heads: int | None = None,
        ff_mult: int = 4,
    ):
        super().__init__()
        self.token_width = token_width
        self.proj = nn.Sequential(
            nn.Linear(identity_width, 2 * identity_width),
            nn.GELU(),
            nn.Linear(2 * identity_width, num_tokens * token_width),
        )
        self.norm = nn.LayerNorm(token_width)
        self.fusion_model = FacePerceiver(
            token_width, image_width, depth, heads or token_width // HEAD_WIDTH, ff_mult
        )

    @classmethod
    def config_from(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of the network a state dict belongs to.

        Raises:
            KeyError: the state dict is no face encoder's.
        """
        width = state["norm.weight"].shape[0]
        layers = {key.split(".")[2] for key in state if key.startswith("fusion_model.layers.")}
        return {
            "token_width": width,
            "identity_width": state["proj.0.weight"].shape[1],
            "image_width": state["fusion_model.proj_in.weight"].shape[1],
            "num_tokens": state["proj.2.weight"].shape[0] // width,
            "depth": len(layers),
            "heads": state["fusion_model.layers.0.0.to_q.weight"].shape[0] // HEAD_WIDTH,
            "ff_mult": state["fusion_model.layers.0.1.1.weight"].shape[0] // width,
        }

    def forward(
        self, identity: Tensor, image_embedding: Tensor, *, shortcut: float | None = None, fuse: bool = True
    ) -> Tensor:
        """Face tokens of one identity per picture.

        Args:
            identity: ArcFace vectors [b e], not normalised.
            image_embedding: CLIP image tokens [b n image_width], usually n = 1.
            shortcut: if given, the result is projection + shortcut * fusion; the published model has none.
            fuse: False is the ablation without the picture: the projected ArcFace vector itself.

        Returns:
            Face tokens [b num_tokens d].
        """
        projected = self.norm(self.proj(identity).unflatten(-1, (-1, self.token_width)))  # [b 4 d]
        if not fuse:
            return projected
        fused = self.fusion_model(projected, image_embedding)
        return fused if shortcut is None else projected + shortcut * fused


def _feed_forward(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, width, bias=False),
    )
