"""Reference Net Encode and Apply Pose Guider: photo and skeletons into CONDITIONING for Animate Anyone."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..stableanimator_core.animate_anyone.preprocess import (
    SIZE_MULTIPLE,
    clip_pixels,
    pose_pixels,
    reference_pixels,
)
from ..stableanimator_core.errors import InputError
from ..stableanimator_core.preprocess import check_pictures, check_pose_aspect, check_size, to_uint8
from . import small
from .anyone_managed import ManagedReferenceNet, expect_image_vae, reference_latents
from .anyone_model import REFERENCE, ReferenceCondition
from .base import CATEGORY, AnimatorNode, advanced, say
from .encode import one_photo
from .inputs import pose_inputs
from .managed import ManagedNetwork, image_embedding, run_in_chunks
from .pose_cond import POSE, PoseCondition
from .sockets import PoseGuiderSocket, ReferenceNetSocket, expect

_LOADER = "Load Animate Anyone Models"


class ReferenceNetEncode(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_ReferenceNetEncode",
            display_name="Reference Net Encode",
            category=f"{CATEGORY}/conditioning",
            description="Runs Animate Anyone's reference net over the photo, once, and makes the conditioning and the "
            "empty latent of the clip.",
            inputs=[
                ReferenceNetSocket.Input("reference_net", tooltip=f"From {_LOADER}."),
                io.ClipVision.Input("clip_vision", tooltip=f"CLIP ViT-L, from {_LOADER}."),
                io.Vae.Input("vae", tooltip=f"Stable Diffusion's VAE, from {_LOADER} or Load VAE."),
                io.Image.Input(
                    "image",
                    tooltip="The photo, whole body if the skeletons show one. It is stretched to width x height, so "
                    "crop it to that shape first.",
                ),
                *_size_inputs(),
                io.Int.Input(
                    "num_frames",
                    default=24,
                    min=1,
                    max=4096,
                    tooltip="Frames of the video: as many as there are skeletons. Above 32, add Looped Windows.",
                ),
                advanced(
                    io.Boolean.Input(
                        "official_rounding",
                        default=False,
                        tooltip="Round what the reference net stores to float16, as the official code always does. "
                        "Only to reproduce it to the last digit; off is more precise.",
                    )
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="The photo. Next: Apply Pose Guider."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The same without it. Next: Apply Pose Guider."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty latent of the clip, for the sampler."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        reference_net,
        clip_vision,
        vae,
        image: torch.Tensor,
        width: int,
        height: int,
        num_frames: int,
        official_rounding: bool,
    ) -> io.NodeOutput:
        expect(reference_net, ManagedReferenceNet, "reference_net", _LOADER)
        expect_image_vae(vae)
        check_size(height, width, SIZE_MULTIPLE)
        if num_frames < 1:
            raise InputError("num_frames", f"is {num_frames}", "give the number of skeletons, at least 1")
        if warning := small.size_warning(reference_net.family, height, width):
            say(cls, warning)
        photo = one_photo(image)
        token = image_embedding(clip_vision, clip_pixels(photo, clip_vision.image_size))
        if token.shape[-1] != reference_net.token_width:
            raise InputError(
                "clip_vision",
                f"gives {token.shape[-1]} numbers, the reference net reads {reference_net.token_width}",
                f"connect the CLIP_VISION of {_LOADER}",
            )
        features = reference_net(reference_latents(vae, reference_pixels(photo, height, width)), token)
        cells = (height // 8, width // 8)
        positive = ReferenceCondition(features, *cells, round_to_half=official_rounding)
        negative = ReferenceCondition({}, *cells)
        return io.NodeOutput(
            [[token, {REFERENCE: positive}]],
            [[torch.zeros_like(token), {REFERENCE: negative}]],
            {"samples": torch.zeros(num_frames, 4, *cells)},
        )


def _size_inputs() -> list[Any]:
    return [
        io.Int.Input(
            name,
            default=default,
            min=64,
            max=4096,
            step=SIZE_MULTIPLE,
            tooltip=f"{name.capitalize()} of the video in pixels, a multiple of 8. Published examples: {default}.",
        )
        for name, default in (("width", 512), ("height", 768))
    ]


class ApplyPoseGuider(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_ApplyPoseGuider",
            display_name="Apply Pose Guider",
            category=f"{CATEGORY}/conditioning",
            description="Adds the skeletons to both halves of Animate Anyone's conditioning: one picture for each "
            "frame of the latent.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From Reference Net Encode."),
                io.Conditioning.Input(
                    "negative", tooltip="From Reference Net Encode; it gets the skeletons too, as published."
                ),
                PoseGuiderSocket.Input("pose_guider", tooltip=f"From {_LOADER}."),
                *pose_inputs(),
            ],
            outputs=[
                io.Conditioning.Output("posed", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("posed_negative", display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, pose_guider, poses, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        expect(pose_guider, ManagedNetwork, "pose_guider", _LOADER)
        pictures = to_uint8(check_pictures(poses, "poses"))
        height, width = _size_of(positive, "positive")
        _size_of(negative, "negative")
        check_pose_aspect(pictures, height, width)
        features = run_in_chunks(pose_guider, pose_pixels(pictures, height, width))
        condition = PoseCondition(features * strength, start_percent, end_percent)
        return io.NodeOutput(*([_posed(entry, condition) for entry in half] for half in (positive, negative)))


def _posed(entry: list, condition: PoseCondition) -> list:
    tokens, rest = entry
    return [tokens, {**rest, POSE: condition}]


def _size_of(half: list, name: str) -> tuple[int, int]:
    """Height and width in pixels that the conditioning was made for."""
    given = half[0][1].get(REFERENCE) if half else None
    if not isinstance(given, ReferenceCondition):
        raise InputError(name, "was not made for Animate Anyone", "connect Reference Net Encode")
    return given.height * 8, given.width * 8
