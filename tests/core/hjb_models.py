"""Tiny networks for the tests of the face optimisation."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from stableanimator_core.hjb.identity_loss import Faces, IdentityLoss, faces_of_clip, pixels_of
from stableanimator_core.hjb.options import Setting
from stableanimator_core.hjb.regions import Box


def tiny_decoder(*, layers: int = 1, widths: tuple[int, ...] = (32, 32, 64, 32), seed: int = 0) -> nn.Module:
    """A frozen temporal decoder of random weights whose blend factors and norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=layers,
        )
        for weight in vae.decoder.parameters():
            if weight.ndim == 1:
                weight.data += 0.3 * torch.randn_like(weight)
    return vae.decoder.eval().requires_grad_(False)


def tiny_embedder(seed: int = 1) -> nn.Module:
    """[n 3 112 112] -> [n 8], with a BatchNorm as in ArcFace."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 7, stride=8), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.Linear(1568, 8)
        )
    return net.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes_for(num_frames: int) -> list[list[Box]]:
    """A face that moves, in pictures of at least 64x64."""
    return [[Box(10 + frame, 34 + frame, 20, 41)] for frame in range(num_frames)]


def tiny_loss(
    latents: Tensor,
    *,
    boxes: list[list[Box]] | None = None,
    checkpointing: str = "none",
    chunk: int = 4,
    dtype: torch.dtype = torch.float32,
    crop: bool = False,
    several: str = "union",
    **rest: object,
) -> IdentityLoss:
    """The identity loss of tiny networks for latents [f 4 h w]."""
    faces: Faces = faces_of_clip(boxes or boxes_for(len(latents)), *pixels_of(latents), several=several)
    setting = Setting(checkpointing, chunk, dtype, crop)
    decoder = tiny_decoder().to(dtype)
    return IdentityLoss(decoder, tiny_embedder(), noise(1, 8, seed=3), faces, setting, **rest)  # type: ignore[arg-type]
