"""Which way of computing the face loss fits the memory, and what to try when it did not.

The prediction runs the decoder's own code on the meta device at the real size and counts its allocations, so
it holds for any VAE of the family. It leaves out what kernels need inside themselves; `KERNEL_RESERVE` stands
for that.
Axes: f frames, c channels, h w height and width of latents.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from .decoder import CHECKPOINTING, Decoding, statistics_of
from .identity_loss import Faces
from .layers import Statistics
from .memory import GIB, peak_bytes
from .options import DTYPES, HJBOptions, Setting
from .regions import Box, union

KERNEL_RESERVE = 0.5
"""GiB kept free for convolution workspaces and the face network's pass."""

OUT_OF_MEMORY = torch.OutOfMemoryError if hasattr(torch, "OutOfMemoryError") else torch.cuda.OutOfMemoryError


def first_setting(
    options: HJBOptions, decoder: nn.Module, embedder: nn.Module, faces: Faces, height: int, width: int
) -> Setting:
    """The setting to begin with: the fastest that is predicted to fit the budget, or the smallest if none is.

    Without a budget: "activations", which costs next to nothing over "none" and takes a third of its memory.
    """
    own = next(decoder.parameters()).dtype
    dtype = DTYPES.get(options.precision, own if own in DTYPES.values() else torch.bfloat16)
    levels = CHECKPOINTING if options.checkpointing == "auto" else (options.checkpointing,)
    settings = [Setting(level, options.chunk, dtype, options.crops) for level in levels]
    if options.budget_gib is None:
        return next((setting for setting in settings if setting.checkpointing == "activations"), settings[0])
    for setting in settings:
        if predicted_gib(setting, decoder, embedder, faces, height, width) <= options.budget_gib:
            return setting
    return settings[-1]


def steps_down(setting: Setting) -> Iterator[tuple[Setting, str]]:
    """Ever smaller settings, with a warning for those that change the result."""
    for level in CHECKPOINTING[CHECKPOINTING.index(setting.checkpointing) + 1 :]:
        setting = replace(setting, checkpointing=level)
        yield setting, ""
    if setting.dtype == torch.float32:
        setting = replace(setting, dtype=torch.bfloat16)
        yield setting, "the decoder now computes in bfloat16, which rounds more coarsely"
    while setting.chunk > 1:
        setting = replace(setting, chunk=setting.chunk // 2)
        warning = (
            f"{setting.chunk} frames are decoded at a time, which changes what the face network sees a little"
        )
        yield setting, warning


def predicted_gib(
    setting: Setting, decoder: nn.Module, embedder: nn.Module, faces: Faces, height: int, width: int
) -> float:
    """GiB the optimisation should hold at most: networks, one chunk there and back, and a reserve."""
    pixels = _largest_part(setting, faces) if setting.crop else None
    frames = min(setting.chunk, len(faces.boxes))
    chunk = chunk_bytes(decoder, setting, (frames, height, width), pixels)
    face_bytes = sum(weight.numel() * weight.element_size() for weight in embedder.parameters())
    item_size = torch.empty(0, dtype=setting.dtype).element_size()
    decoder_bytes = sum(weight.numel() for weight in decoder.parameters()) * item_size
    return (chunk + face_bytes + decoder_bytes) / GIB + KERNEL_RESERVE


def chunk_bytes(
    decoder: nn.Module, setting: Setting, size: tuple[int, int, int], pixels: Box | None = None
) -> int:
    """The most bytes one chunk's forward and backward pass holds, counted on the meta device.

    Args:
        decoder: a temporal decoder; only its shapes matter.
        setting: how it is run.
        size: frames, height and width of the chunk's latents.
        pixels: with `setting.crop`, the part of the picture that is decoded.
    """
    shapes = _on_meta(decoder, setting.dtype)
    channels = shapes.conv_in.in_channels  # type: ignore[union-attr]
    latents = torch.empty(size[0], channels, *size[1:], device="meta", dtype=setting.dtype)  # type: ignore
    statistics: Statistics = {}

    def without_gradient() -> None:
        statistics.update(statistics_of(shapes, latents))

    def there_and_back() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            variable = latents.detach().requires_grad_()
            decoding = Decoding(shapes, checkpointing=setting.checkpointing, frozen=statistics)
            decoded = decoding(variable, pixels)
            upstream = torch.empty_like(decoded)
            torch.autograd.grad(decoded, variable, upstream)

    with torch.inference_mode(False):
        whole = peak_bytes(without_gradient) if setting.crop else 0
        return max(whole, peak_bytes(there_and_back))


def _largest_part(setting: Setting, faces: Faces) -> Box:
    """The largest part of the picture any chunk has to decode."""
    size = setting.chunk
    chunks = (faces.boxes[start : start + size] for start in range(0, len(faces.boxes), size))
    parts = [union([box for frame in chunk for box in frame]) for chunk in chunks if any(chunk)]
    return max(parts, key=lambda box: box.size[0] * box.size[1])


def _on_meta(decoder: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the decoder without data."""
    weights = [*decoder.parameters(), *decoder.buffers()]
    with torch.inference_mode(False):
        empty = {
            id(weight): nn.Parameter(
                torch.empty(weight.shape, device="meta", dtype=dtype), requires_grad=False
            )
            for weight in weights
        }
        return copy.deepcopy(decoder, empty)  # type: ignore[arg-type]
