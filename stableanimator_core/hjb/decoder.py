"""Decode latents to pictures so that a gradient can flow back: whole frames, or only the part around the
faces.

Runs the layers of diffusers' temporal decoder (`decoder` of `AutoencoderKLTemporalDecoder`; the layers are
found by their names, which are those in the checkpoint) in its order and gives its result up to float32
rounding; likewise those of the decoder for single pictures, as `PictureDecoder`. Different from their own
forward: what is kept for the backward pass is chosen here, and a picture can be decoded in part.
Axes: f frames of one chunk, c channels, h w height and width of latents (of features further in), H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import Layers, Statistics
from .regions import BlockBoxes, Box, plan_decoding

CHECKPOINTING = ("none", "activations", "block", "resblock")
"""What is computed again in the backward pass, fastest and largest first.

none: nothing. activations: normalisations, SiLU and the one attention; no convolution. block: each block as a
whole, so only the inputs of the blocks are kept. resblock: each resblock as a whole, so only one of them is
held at a time.
"""


class PictureDecoder(nn.Module):
    """The decoding half of diffusers' `AutoencoderKL` (Stable Diffusion's VAE); its layers are shared, not copied.

    Frames do not mix in it, so how a clip is cut into chunks changes memory only.
    """

    def __init__(self, vae: Any):
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        for name, layer in vae.decoder.named_children():
            self.add_module(name, layer)


class Decoding:
    """One way to decode; `Decoding(decoder)(latents)` equals `decoder(latents, ...)`.

    Args:
        decoder: a temporal decoder or a `PictureDecoder`, with weights that autograd may use (see `usable_copy`).
        checkpointing: one of `CHECKPOINTING`.
        frozen: GroupNorm statistics to use after the middle block, from `statistics_of`.
        record: filled with the statistics of each norm, if given.
    """

    def __init__(
        self,
        decoder: nn.Module,
        *,
        checkpointing: str = "none",
        frozen: Statistics | None = None,
        record: Statistics | None = None,
    ):
        self.decoder: Any = decoder
        self.checkpointing = checkpointing
        keep_little = checkpointing != "none"
        self.whole = Layers(keep_little=keep_little, record=record)
        self.part = Layers(keep_little=keep_little, frozen=frozen, record=record)

    def __call__(self, latents: Tensor, pixels: Box | None = None) -> Tensor:
        """Pictures [f 3 H W] around -1..1 of one chunk of latents [f c h w] in the scale of the VAE.

        Args:
            latents: one chunk; the frames of a chunk mix.
            pixels: the part of the picture to give. Equals that part of the whole picture if the statistics
                were taken from the same latents.
        """
        height, width = latents.shape[-2:]
        plan = plan_decoding(self.decoder, height, width, pixels)
        entrance = getattr(self.decoder, "post_quant_conv", None)
        x = self._middle(self.decoder.conv_in(latents if entrance is None else entrance(latents)))
        have = Box(0, height, 0, width)
        for block, boxes in zip(self.decoder.up_blocks, plan.blocks, strict=True):
            x, have = self._up_block(block, x, have, boxes)
        x = self.part.norm_act_conv(self.decoder.conv_norm_out, self.decoder.conv_out, plan.tail.cut(x, have))
        x = plan.pixels.cut(x, plan.tail)
        if not hasattr(self.decoder, "time_conv_out"):
            return x
        return _frames(self.decoder.time_conv_out(_clip(x)))

    def _middle(self, x: Tensor) -> Tensor:
        middle = self.decoder.mid_block

        def run(x: Tensor) -> Tensor:
            x = self._resblock(middle.resnets[0], x, self.whole)
            for attention, resblock in zip(middle.attentions, middle.resnets[1:], strict=False):
                x = self._again("activations", "resblock", run=attention)(
                    x
                ).contiguous()  # it comes transposed
                x = self._resblock(resblock, x, self.whole)
            return x

        return self._again("block", run=run)(x)

    def _up_block(self, block: Any, x: Tensor, have: Box, boxes: BlockBoxes) -> tuple[Tensor, Box]:
        upsampled = boxes.upsampled

        def run(x: Tensor) -> Tensor:
            origin = have
            for resblock, given, wanted in zip(block.resnets, boxes.inputs, boxes.outputs, strict=True):
                x = self._resblock(resblock, given.cut(x, origin), self.part, given, wanted)
                origin = wanted
            return x if upsampled is None else self._upsample(block.upsamplers[0], x, origin, upsampled)

        return self._again("block", run=run)(x), upsampled or boxes.outputs[-1]

    def _resblock(
        self, block: Any, x: Tensor, layers: Layers, given: Box | None = None, wanted: Box | None = None
    ) -> Tensor:
        mixes_frames = hasattr(block, "temporal_res_block")

        def run(x: Tensor) -> Tensor:
            x = _residual(block.spatial_res_block if mixes_frames else block, x, layers)
            if given is not None and wanted is not None:
                x = wanted.cut(x, given)
            if not mixes_frames:
                return x
            clip = _clip(x)
            mixed = _residual(block.temporal_res_block, clip, layers)
            return _frames(block.time_mixer(x_spatial=clip, x_temporal=mixed, image_only_indicator=None))

        return self._again("resblock", run=run)(x)

    def _upsample(self, upsampler: Any, x: Tensor, have: Box, wanted: Box) -> Tensor:
        # `have` covers half of what `wanted` needs, so doubled it reaches 1 pixel around `wanted`
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return wanted.cut(self.part.conv(upsampler.conv, doubled), have.doubled())

    def _again(self, *levels: str, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """`run`, computed again in the backward pass if the chosen checkpointing is one of `levels`."""
        if self.checkpointing not in levels or not torch.is_grad_enabled():
            return run
        return lambda x: checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)  # type: ignore


@torch.no_grad()
def statistics_of(decoder: nn.Module, latents: Tensor) -> Statistics:
    """GroupNorm statistics of everything past the middle block while one chunk [f c h w] is decoded whole."""
    recorded: Statistics = {}
    Decoding(decoder, record=recorded)(latents)
    middle = set(decoder.mid_block.modules())  # type: ignore[union-attr]
    return {norm: statistics for norm, statistics in recorded.items() if norm not in middle}


def _residual(block: Any, x: Tensor, layers: Layers) -> Tensor:
    """A spatial or temporal resblock without time embedding."""
    hidden = layers.norm_act_conv(block.norm1, block.conv1, x)
    hidden = layers.norm_act_conv(block.norm2, block.conv2, hidden)
    if block.conv_shortcut is not None:
        x = layers.conv(block.conv_shortcut, x)
    return x + hidden


def _clip(x: Tensor) -> Tensor:
    return x.unflatten(0, (1, -1)).transpose(1, 2)  # [f c h w] -> [1 c f h w]


def _frames(x: Tensor) -> Tensor:
    return x[0].transpose(0, 1)  # [1 c f h w] -> [f c h w]
