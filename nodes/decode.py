"""VAE Decode (Animator): the clip in fixed temporal chunks, the same picture on every card."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io

from ..stableanimator_core.decode import DecodeOptions, decode_stream
from ..stableanimator_core.errors import InputError
from ..stableanimator_core.windows import chunks
from .base import CATEGORY, AnimatorNode, advanced, refusal
from .managed import decode_chunk, expect_temporal_vae


class VAEDecodeTiled(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_VAEDecodeTiled",
            display_name="VAE Decode Tiled (Animator)",
            category=f"{CATEGORY}/latent",
            description="Decodes a clip with SVD's temporal VAE. Core's VAE Decode cuts the clip by free memory, and "
            "its tiled form decodes single frames; here the cut is a setting.",
            inputs=[
                io.Latent.Input("samples", tooltip="The denoised latent of the clip."),
                io.Vae.Input("vae", tooltip="SVD's VAE, from Load Animator Models or a core loader."),
                io.Int.Input(
                    "frame_chunk",
                    default=4,
                    min=1,
                    max=256,
                    tooltip="Frames decoded together: they see each other, so this is part of the picture. "
                    "4, 8 and 16 are official. Memory at 512 x 512 in half precision: 0.5 GiB a frame.",
                ),
                io.Int.Input(
                    "frame_overlap",
                    default=0,
                    min=0,
                    max=255,
                    tooltip="Frames shared by neighbouring chunks and cross-faded: hides seams in time, costs time. "
                    "0 is official.",
                ),
                advanced(
                    io.Int.Input(
                        "tile",
                        default=0,
                        min=0,
                        max=4096,
                        step=64,
                        tooltip="Side of a spatial tile in pixels, to save memory; 0 decodes whole frames. "
                        "Tiles can differ a little in contrast.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "tile_overlap",
                        default=64,
                        min=0,
                        max=1024,
                        step=8,
                        tooltip="Pixels shared by neighbouring tiles and cross-faded.",
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames, 0 to 1. Next: Create Video.")
            ],
        )

    @classmethod
    def validate_inputs(
        cls, frame_chunk=None, frame_overlap=None, tile=None, tile_overlap=None
    ) -> bool | str:
        """Impossible settings are refused when the workflow is queued, not after the sampling."""
        values = (frame_chunk, frame_overlap, tile, tile_overlap)
        return None in values or refusal(cls, DecodeOptions(*values).check)  # None comes from another node

    @classmethod
    def execute(
        cls, samples, vae, frame_chunk: int, frame_overlap: int, tile: int, tile_overlap: int
    ) -> io.NodeOutput:
        options = DecodeOptions(frame_chunk, frame_overlap, tile, tile_overlap)
        options.check()
        expect_temporal_vae(vae)
        latents = samples["samples"]
        if latents.dim() != 4 or latents.shape[1] != vae.latent_channels or 0 in latents.shape:
            raise InputError(
                "samples", f"has the shape {list(latents.shape)}", "give the LATENT of an animated clip"
            )
        num_frames = len(latents)
        progress = comfy.utils.ProgressBar(len(list(chunks(num_frames, options.chunk, options.overlap))))

        def decode(part: torch.Tensor) -> torch.Tensor:
            mm.throw_exception_if_processing_interrupted()
            return decode_chunk(vae, part)

        frames: torch.Tensor | None = None
        done = 0
        for block in decode_stream(decode, latents, options):
            if frames is None:
                frames = torch.empty(num_frames, *block.shape[1:])
            frames[done : done + len(block)] = block
            done += len(block)
            progress.update(1)
        return io.NodeOutput(frames)
