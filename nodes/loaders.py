"""Load Animator Models: StableAnimator's files into ComfyUI's sockets."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from . import dtypes, folders, small
from .base import CATEGORY, AnimatorNode, advanced, say
from .inputs import weights_input
from .managed import ManagedNetwork, TemporalVAE, clip_vision_of
from .model import model_patcher
from .sockets import FaceEncoderSocket, PoseNetSocket

_FOLDERS = {
    "unet": folders.UNET_FOLDERS,
    "pose_net": (folders.FOLDER,),
    "face_encoder": (folders.FOLDER,),
    "svd": folders.SVD_FOLDERS,
}


class LoadAnimatorModels(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_LoadAnimatorModels",
            display_name="Load Animator Models",
            category=f"{CATEGORY}/loaders",
            description="Loads StableAnimator's three files and Stable Video Diffusion's VAE and image encoder. "
            "Put them into models/stableanimator; the official folder tree works as it is. A small demo model "
            "comes with the pack.",
            inputs=[
                weights_input(
                    "unet",
                    folders.file_choices(
                        folders.UNET_FOLDERS, "unet.pth", "unet", unlike=folders.OTHER_UNETS
                    ),
                    "The animation U-Net with its ID adapter: unet.pth (6.2 GB) or its converted .safetensors. The "
                    "small demo model comes with the pack: drawn figures, 128 x 128; choose it in all four menus.",
                ),
                weights_input(
                    "pose_net",
                    folders.file_choices((folders.FOLDER,), "pose_net.pth", "pose_net", "posenet"),
                    "The network that turns skeleton pictures into features: pose_net.pth (0.8 MB).",
                ),
                weights_input(
                    "face_encoder",
                    folders.file_choices((folders.FOLDER,), "face_encoder.pth", "face_encoder"),
                    "The network that turns a face embedding into tokens: face_encoder.pth (229 MB).",
                ),
                weights_input(
                    "svd",
                    folders.svd_choices("svd_xt.safetensors"),
                    "Stable Video Diffusion XT, for its VAE and image encoder: svd_xt.safetensors, "
                    "or the diffusers folder with vae/ and image_encoder/. Its own U-Net is not used.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(dtypes.WEIGHT_DTYPES),
                        default="default",
                        tooltip="How the U-Net's weights are stored. Default follows the file and your card. "
                        "fp8 halves their memory (1.6 instead of 3.1 GB) for a small loss of detail.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="For KSampler, SamplerCustom and model patches."
                ),
                io.ClipVision.Output(display_name="clip_vision", tooltip="For ArcFace + CLIP Encode."),
                io.Vae.Output(
                    display_name="vae", tooltip="For ArcFace + CLIP Encode and VAE Decode (Animator)."
                ),
                PoseNetSocket.Output(display_name="pose_net", tooltip="For Apply PoseNet."),
                FaceEncoderSocket.Output(display_name="face_encoder", tooltip="For ArcFace + CLIP Encode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, unet: str, pose_net: str, face_encoder: str, svd: str, weight_dtype: str
    ) -> io.NodeOutput:
        from ..stableanimator_core.weights import load

        chosen = {"unet": unet, "pose_net": pose_net, "face_encoder": face_encoder, "svd": svd}
        paths = {role: folders.resolve(name, _FOLDERS[role], role) for role, name in chosen.items()}
        poses = load.load_pose_net(paths["pose_net"], dtype=torch.float32)
        faces = load.load_face_encoder(paths["face_encoder"], dtype=torch.float32)
        pictures = load.load_image_encoder(paths["svd"])
        model = _load_unet(paths["unet"], weight_dtype)
        _check_that_they_fit(chosen, model.model, poses, faces, pictures)
        if small.ENTRY in chosen.values():
            say(cls, small.ABOUT)
        return io.NodeOutput(
            model,
            clip_vision_of(pictures),
            TemporalVAE(load.load_vae(paths["svd"])),
            ManagedNetwork(poses),
            ManagedNetwork(faces, small.family_of_face_encoder(face_encoder, faces)),
        )


def _check_that_they_fit(chosen: dict[str, str], model, pose_net, face_encoder, image_encoder) -> None:
    """Refuse files of different models. The VAE tells nothing by itself; it comes with the image encoder.

    Raises:
        InputError: names the inputs that do not fit the U-Net.
    """
    from ..stableanimator_core.errors import InputError

    widths = {
        "pose_net": (pose_net.final_proj.out_channels, model.pose_channels),
        "face_encoder": (face_encoder.token_width, model.token_width),
        "svd": (image_encoder.config.projection_dim, model.token_width),
    }
    odd = [role for role, (given, wanted) in widths.items() if given != wanted]
    if odd:
        mixed = small.ENTRY in chosen.values()
        remedy = (
            f"choose '{small.ENTRY}' in all four menus, or in none" if mixed else "choose files of one model"
        )
        files = ", ".join(
            f"{role} '{chosen[role]}' ({widths[role][0]} wide, not {widths[role][1]})" for role in odd
        )
        raise InputError(files, f"do not fit the U-Net '{chosen['unet']}'", remedy)


def _load_unet(path, weight_dtype: str):
    """MODEL in the dtype asked for; float8 is storage only, computed in what the card does best."""
    from ..stableanimator_core.weights import load

    dtype = dtypes.asked_for(weight_dtype)
    unet = load.load_unet(path, dtype)
    return model_patcher(unet, *dtypes.store(unet, dtype))
