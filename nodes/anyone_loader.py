"""Load Animate Anyone Models: the second system's files into ComfyUI's sockets."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from . import dtypes, folders
from .anyone_managed import ManagedReferenceNet
from .anyone_model import anyone_patcher
from .base import CATEGORY, AnimatorNode, advanced
from .managed import ImageVAE, ManagedNetwork, clip_vision_of
from .sockets import PoseGuiderSocket, ReferenceNetSocket

_OWN = (folders.FOLDER,)
_UNETS = (folders.FOLDER, "diffusion_models")
_VAES = (folders.FOLDER, "vae")
_ENCODERS = (folders.FOLDER, "clip_vision")
_MOTIONS = (folders.FOLDER, "animatediff_models")
NO_MOTION = "none (in the denoising file)"


class LoadAnimateAnyoneModels(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_LoadAnimateAnyoneModels",
            display_name="Load Animate Anyone Models",
            category=f"{CATEGORY}/loaders",
            description="Loads Animate Anyone's four files, Stable Diffusion's VAE and the CLIP image encoder. Stable "
            "Diffusion 1.5 itself is not needed.",
            inputs=[
                io.Combo.Input(
                    "denoising_unet",
                    options=_choices(_UNETS, "denoising_unet.pth", "denoising"),
                    tooltip="The network that draws the frames: denoising_unet.pth (3.4 GB).",
                ),
                io.Combo.Input(
                    "reference_unet",
                    options=_choices(_UNETS, "reference_unet.pth", "reference"),
                    tooltip="The network that looks at the photo: reference_unet.pth (3.4 GB).",
                ),
                io.Combo.Input(
                    "motion_module",
                    options=[*_choices(_MOTIONS, "motion_module.pth", "motion", "mm_sd"), NO_MOTION],
                    tooltip="What joins the frames: motion_module.pth (1.8 GB), or AnimateDiff's mm_sd_v15_v2.",
                ),
                io.Combo.Input(
                    "pose_guider",
                    options=_choices(_OWN, "pose_guider.pth", "pose_guider"),
                    tooltip="The network that turns skeleton pictures into features: pose_guider.pth (4 MB).",
                ),
                io.Combo.Input(
                    "vae",
                    options=_choices(
                        _VAES, "sd-vae-ft-mse/diffusion_pytorch_model.safetensors", "ft-mse", "vae"
                    ),
                    tooltip="Stable Diffusion's VAE: sd-vae-ft-mse in diffusers' form, or vae-ft-mse-840000.",
                ),
                io.Combo.Input(
                    "image_encoder",
                    options=_choices(
                        _ENCODERS, "image_encoder/pytorch_model.bin", "vit-large", "vit_l", "clip-vit-l"
                    ),
                    tooltip="CLIP ViT-L with its projection, as sd-image-variations has it.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(dtypes.WEIGHT_DTYPES),
                        default="default",
                        tooltip="How the two U-Nets' weights are stored. Default follows the file and your card. fp8 "
                        "halves the memory of the denoising one for a small loss of detail.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="For KSampler, SamplerCustom and model patches."
                ),
                io.ClipVision.Output(display_name="clip_vision", tooltip="For Reference Net Encode."),
                io.Vae.Output(display_name="vae", tooltip="For Reference Net Encode and VAE Decode."),
                ReferenceNetSocket.Output(display_name="reference_net", tooltip="For Reference Net Encode."),
                PoseGuiderSocket.Output(display_name="pose_guider", tooltip="For Apply Pose Guider."),
            ],
        )

    @classmethod
    def execute(
        cls,
        denoising_unet: str,
        reference_unet: str,
        motion_module: str,
        pose_guider: str,
        vae: str,
        image_encoder: str,
        weight_dtype: str,
    ) -> io.NodeOutput:
        from ..stableanimator_core.animate_anyone.pipeline import AnimateAnyone
        from ..stableanimator_core.weights import animate_anyone as load
        from ..stableanimator_core.weights.load import load_image_encoder

        dtype = dtypes.asked_for(weight_dtype)
        unet_path = folders.resolve(denoising_unet, _UNETS, "denoising_unet")
        net_path = folders.resolve(reference_unet, _UNETS, "reference_unet")
        motion_path = None
        if motion_module != NO_MOTION:
            motion_path = folders.resolve(motion_module, _MOTIONS, "motion_module")
        guider_path = folders.resolve(pose_guider, _OWN, "pose_guider")
        vae_path = folders.resolve(vae, _VAES, "vae")
        encoder_path = folders.resolve(image_encoder, _ENCODERS, "image_encoder")
        whole = (
            torch.float16 if dtype is not None and dtype.itemsize == 1 else dtype
        )  # the rest is not kept in 8 bits
        system = AnimateAnyone(
            load.load_denoising_unet(unet_path, motion_path, dtype),
            load.load_reference_net(net_path, whole),
            load.load_pose_guider(guider_path, torch.float32),
            load.load_image_vae(vae_path),
            load_image_encoder(encoder_path),
        )
        load.check_sizes(system)
        return io.NodeOutput(*sockets_of(system, dtype, whole))


def sockets_of(system: Any, unet_dtype: torch.dtype | None, net_dtype: torch.dtype | None) -> tuple[Any, ...]:
    """The node's outputs from the core's five networks, whose U-Nets are in these dtypes or not yet decided on."""
    storage, compute = dtypes.store(system.denoising_unet, unet_dtype)
    net_storage, net_compute = dtypes.store(system.reference_net, net_dtype)
    return (
        anyone_patcher(system.denoising_unet, storage, compute),
        clip_vision_of(system.image_encoder),
        ImageVAE(system.vae),
        ManagedReferenceNet(system.reference_net, net_compute or net_storage),
        ManagedNetwork(system.pose_guider),
    )


def _choices(places: tuple[str, ...], official: str, *words: str) -> list[str]:
    """As `folders.file_choices`, the official name first wherever it lies."""
    names = folders.file_choices(places, official, *words)
    return sorted(names, key=lambda name: not (name == official or name.endswith(f"/{official}")))
