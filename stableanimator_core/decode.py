"""Latents into frames, in fixed temporal chunks with optional overlap and spatial tiles.

The temporal VAE decoder mixes the frames it decodes together, so the chunk size is part of the picture. It is a setting
here, never a guess from free memory: the same clip on every card. Overlap 0 is the official decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .windows import chunks, even_spans

LATENT_SCALE = 8

DecodeChunk = Callable[[Tensor], Tensor]
"""Latents [f 4 h w], already divided by the scaling factor, of frames that belong together -> pixels [f 3 H W]."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to cut the work; see `decode_stream`.

    Attributes:
        chunk: frames decoded together; the official scripts use 4, 8 or 16.
        overlap: frames shared by neighbouring chunks and cross-faded; 0 is official.
        tile: side of a spatial tile in pixels, 0 for whole frames.
        tile_overlap: pixels shared by neighbouring tiles and cross-faded.
    """

    chunk: int = 4
    overlap: int = 0
    tile: int = 0
    tile_overlap: int = 64

    def check(self) -> None:
        """Refuse impossible settings by name.

        Raises:
            InputError: a chunk under one frame; an overlap not smaller than its chunk or tile; a tile too small.
        """
        if self.chunk < 1:
            raise InputError(
                "frame chunk", f"is {self.chunk}", "use 1 or more; 4 to 16 are the official values"
            )
        if not 0 <= self.overlap < self.chunk:
            raise InputError(
                "frame overlap",
                f"is {self.overlap} for chunks of {self.chunk} frames",
                f"use 0 to {self.chunk - 1}",
            )
        if self.tile and self.tile < 64:
            raise InputError("tile", f"is {self.tile} pixels", "use 0 for whole frames, or 64 and more")
        if self.tile and not 0 <= self.tile_overlap <= self.tile // 2:
            raise InputError(
                "tile overlap",
                f"is {self.tile_overlap} for tiles of {self.tile} pixels",
                f"use 0 to {self.tile // 2}",
            )


def decode_stream(decode: DecodeChunk, latents: Tensor, options: DecodeOptions) -> Iterator[Tensor]:
    """Finished frames in order, as blocks [n H W 3] in 0..1; memory is one chunk, however long the clip.

    Args:
        decode: the VAE's decoder.
        latents: [f 4 h w], divided by the scaling factor.
        options: chunk, overlap and tiles.

    Raises:
        InputError: see `DecodeOptions.check`; or there is no frame.
    """
    options.check()
    if not len(latents):
        raise InputError("latents", "have no frame", "give at least one")
    kept: Tensor | None = None  # the last frames of the chunk before, waiting to be cross-faded
    num_frames = latents.shape[0]
    for start, stop in chunks(num_frames, options.chunk, options.overlap):
        frames = _decode_tiles(decode, latents[start:stop], options)
        if kept is not None:
            frames[: len(kept)] = _cross_fade(kept, frames[: len(kept)])
        done = len(frames) if stop == num_frames else len(frames) - options.overlap
        kept = frames[done:].clone() if options.overlap else None
        yield to_image(frames[:done])


def decode_clip(decode: DecodeChunk, latents: Tensor, options: DecodeOptions | None = None) -> Tensor:
    """All frames at once: [f H W 3] float32 in 0..1; see `decode_stream`."""
    return torch.cat(list(decode_stream(decode, latents, options or DecodeOptions())))


def to_image(pixels: Tensor) -> Tensor:
    """Decoder output [f 3 H W] in [-1, 1] and a little beyond -> [f H W 3] in 0..1, float32."""
    return (pixels.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _cross_fade(before: Tensor, after: Tensor) -> Tensor:
    """From `before` to `after` along the first axis; neither end is pure, both chunks know these frames."""
    ramp = torch.arange(1, len(before) + 1, dtype=before.dtype, device=before.device) / (len(before) + 1)
    return torch.lerp(before, after, ramp.view(-1, 1, 1, 1))


def _decode_tiles(decode: DecodeChunk, latents: Tensor, options: DecodeOptions) -> Tensor:
    """One chunk, whole or tile by tile with feathered seams: [f 3 H W]."""
    tile, overlap = options.tile // LATENT_SCALE, options.tile_overlap // LATENT_SCALE
    height, width = latents.shape[-2:]
    if not tile or (height <= tile and width <= tile):
        return decode(latents).float().cpu().clone()
    total = torch.zeros(len(latents), 3, height * LATENT_SCALE, width * LATENT_SCALE)
    weight = torch.zeros(1, 1, *total.shape[-2:])
    for top, bottom in even_spans(height, tile, overlap):
        for left, right in even_spans(width, tile, overlap):
            pixels = decode(latents[..., top:bottom, left:right]).float().cpu()
            feather = _feather(bottom - top, overlap).view(-1, 1) * _feather(right - left, overlap).view(
                1, -1
            )
            area = (..., slice(top * 8, bottom * 8), slice(left * 8, right * 8))
            total[area] += pixels * feather
            weight[area] += feather
    return total / weight


def _feather(latent_side: int, overlap: int) -> Tensor:
    """Weights along one side of a tile in pixels: rise over the overlap, flat, fall."""
    side = latent_side * LATENT_SCALE
    positions = torch.arange(side) + 0.5
    edge = torch.minimum(positions, side - positions)
    return (edge / max(overlap * LATENT_SCALE, 1)).clamp(max=1.0)
