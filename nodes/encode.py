"""ArcFace + CLIP Encode and Apply PoseNet: reference, face and skeletons into CONDITIONING."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..stableanimator_core import conditioning as cond
from ..stableanimator_core.errors import InputError
from ..stableanimator_core.face.embed import FaceIdentity
from ..stableanimator_core.preprocess import (
    check_photo,
    check_pictures,
    check_size,
    clip_pixels,
    pose_pixels,
    reference_pixels,
    to_uint8,
)
from ..stableanimator_core.windows import DEFAULT_WINDOW_SIZE
from . import small
from .base import CATEGORY, AnimatorNode, advanced, say
from .inputs import pose_inputs, size_inputs
from .managed import ManagedNetwork, encode_reference, expect_temporal_vae, image_embedding, run_in_chunks
from .model import TIME_IDS
from .pose_cond import POSE, PoseCondition
from .sockets import FaceEncoderSocket, FaceSocket, PoseNetSocket, expect

_LOADER = "Load Animator Models"


class ArcFaceCLIPEncode(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_ArcFaceCLIPEncode",
            display_name="ArcFace + CLIP Encode",
            category=f"{CATEGORY}/conditioning",
            description="Encodes the photo three ways (VAE latent, CLIP embedding, face tokens) into the conditioning, "
            "and makes the empty latent of the clip.",
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="SVD's image encoder, from Load Animator Models."),
                io.Vae.Input("vae", tooltip="SVD's VAE, from Load Animator Models."),
                FaceEncoderSocket.Input("face_encoder", tooltip="From Load Animator Models."),
                io.Image.Input(
                    "image", tooltip="The reference photo, any size; it is fitted to width x height."
                ),
                FaceSocket.Input(
                    "face",
                    optional=True,
                    tooltip="Who the person is, from Face Embed. Left open, the clip is made without identity: "
                    "the face then follows the photo's look only.",
                ),
                *size_inputs("the video", trained=True),
                io.Int.Input(
                    "num_frames",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="Frames of the video: as many as there are skeletons. Above 16, add Animation Windows.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the grain that is added to the photo. The clip's own noise is the sampler's.",
                ),
                advanced(
                    io.Int.Input(
                        "motion_bucket",
                        default=127,
                        min=0,
                        max=1023,
                        tooltip="SVD's amount of motion; 127 is what it was trained on.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "fps",
                        default=7.0,
                        min=1.0,
                        max=120.0,
                        step=0.5,
                        round=False,
                        tooltip="SVD's frame-rate hint, not the video's rate; 7 is what it was trained on.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "noise_augmentation",
                        default=0.02,
                        min=0.0,
                        max=10.0,
                        step=0.01,
                        round=False,
                        tooltip="Grain added to the photo before encoding. More lets the clip leave the photo.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "content_fusion",
                        default=True,
                        tooltip="Let the face embedding look at the whole photo (Face Encoder). Off is the "
                        "ablation: the face embedding goes in as it is.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "noise_window",
                        default=DEFAULT_WINDOW_SIZE,
                        min=0,
                        max=4096,
                        tooltip="The sampler's noise repeats after this many frames, as in the official code (16), "
                        "which holds long clips together. 0 gives every frame its own noise.",
                    )
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="The photo and the face. Next: Apply PoseNet."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The same without them. Next: Apply PoseNet."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty latent of the clip, for the sampler."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        clip_vision,
        vae,
        face_encoder,
        image: torch.Tensor,
        width: int,
        height: int,
        num_frames: int,
        seed: int,
        motion_bucket: int,
        fps: float,
        noise_augmentation: float,
        content_fusion: bool,
        noise_window: int,
        face: FaceIdentity | None = None,
    ) -> io.NodeOutput:
        expect(face_encoder, ManagedNetwork, "face_encoder", _LOADER)
        expect_temporal_vae(vae)
        check_size(height, width)
        if num_frames < 1:
            raise InputError("num_frames", f"is {num_frames}", "give the number of skeletons, at least 1")
        if warning := small.size_warning(face_encoder.family, height, width):
            say(cls, warning)
        photo = one_photo(image)
        embedding = _image_embedding(clip_vision, photo, face_encoder.module.token_width)
        tokens = cond.join_tokens(embedding, _face_tokens(face_encoder, face, embedding, content_fusion))
        noise = cond.draw_noise((1, 3, height, width), torch.Generator("cpu").manual_seed(seed))
        pixels = cond.augment(reference_pixels(photo, height, width), noise, noise_augmentation)
        pair = cond.Conditioning(
            tokens, encode_reference(vae, pixels), cond.added_time_ids(fps, motion_bucket, noise_augmentation)
        ).both_halves()
        samples = torch.zeros(num_frames, 4, height // 8, width // 8)
        latent = {"samples": samples}
        if noise_window > 0:
            latent["batch_index"] = [frame % noise_window for frame in range(num_frames)]
        return io.NodeOutput(_conditioning(pair, 1), _conditioning(pair, 0), latent)


def one_photo(image: torch.Tensor):
    pictures = check_pictures(image, "image")
    if len(pictures) != 1:
        raise InputError("image", f"is a batch of {len(pictures)} pictures", "give one reference photo")
    return check_photo(to_uint8(pictures)[0])


def _image_embedding(clip_vision, photo, width: int) -> torch.Tensor:
    embedding = image_embedding(clip_vision, clip_pixels(photo, clip_vision.image_size))
    if embedding.shape[-1] != width:
        raise InputError(
            "clip_vision",
            f"gives {embedding.shape[-1]} numbers, the model reads {width}",
            "connect the CLIP_VISION of Load Animator Models",
        )
    return embedding


def _face_tokens(
    face_encoder: ManagedNetwork, face: FaceIdentity | None, embedding: torch.Tensor, fuse: bool
) -> torch.Tensor | None:
    if face is None or expect(face, FaceIdentity, "face", "Face Embed").identity is None:
        return None
    small.expect_same_family("face", face.family, "the face encoder", face_encoder.family)
    return face_encoder(face.identity.reshape(1, -1), embedding, fuse=fuse)


def _conditioning(pair: cond.Conditioning, row: int) -> list:
    """One guidance half as ComfyUI CONDITIONING; `concat_latent_image` is core's own name for it."""
    rest = {
        "concat_latent_image": pair.image_latents[row : row + 1],
        TIME_IDS: pair.added_time_ids[row : row + 1],
    }
    return [[pair.tokens[row : row + 1], rest]]


class ApplyPoseNet(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_ApplyPoseNet",
            display_name="Apply PoseNet",
            category=f"{CATEGORY}/conditioning",
            description="Adds the skeletons to the conditioning: one picture for each frame of the latent.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From ArcFace + CLIP Encode."),
                io.Conditioning.Input(
                    "negative", tooltip="From ArcFace + CLIP Encode; it stays without skeleton."
                ),
                PoseNetSocket.Input("pose_net", tooltip="From Load Animator Models."),
                *pose_inputs(),
            ],
            outputs=[
                io.Conditioning.Output("with_pose", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("without_pose", display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, pose_net, poses, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        expect(pose_net, ManagedNetwork, "pose_net", _LOADER)
        pictures = to_uint8(check_pictures(poses, "poses"))
        features = run_in_chunks(pose_net, pose_pixels(pictures, *_size_of(positive)))
        condition = PoseCondition(features * strength, start_percent, end_percent)
        return io.NodeOutput([[tokens, {**rest, POSE: condition}] for tokens, rest in positive], negative)


def _size_of(positive: list) -> tuple[int, int]:
    """Height and width in pixels that the conditioning was made for."""
    if not positive or "concat_latent_image" not in positive[0][1]:
        raise InputError("positive", "was not made for StableAnimator", "connect ArcFace + CLIP Encode")
    height, width = positive[0][1]["concat_latent_image"].shape[-2:]
    return height * 8, width * 8
