"""Load Animate Anyone Models: the second system's files into ComfyUI's sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError
from . import dtypes, folders, small
from .anyone_managed import ManagedReferenceNet
from .anyone_model import anyone_patcher
from .base import CATEGORY, AnimatorNode, advanced, say
from .inputs import with_small_model
from .managed import ImageVAE, ManagedNetwork, clip_vision_of
from .sockets import PoseGuiderSocket, ReferenceNetSocket

NO_MOTION = "none (in the denoising file)"
_UNETS = (folders.FOLDER, "diffusion_models")
_FOLDERS = {
    "denoising_unet": _UNETS,
    "reference_unet": _UNETS,
    "motion_module": (folders.FOLDER, "animatediff_models"),
    "pose_guider": (folders.FOLDER,),
    "vae": (folders.FOLDER, "vae"),
    "image_encoder": (folders.FOLDER, "clip_vision"),
}


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
                _input(
                    "denoising_unet",
                    _choices("denoising_unet", "denoising_unet.pth", "denoising"),
                    "The network that draws the frames: denoising_unet.pth (3.4 GB).",
                ),
                _input(
                    "reference_unet",
                    _choices("reference_unet", "reference_unet.pth", "reference"),
                    "The network that looks at the photo: reference_unet.pth (3.4 GB).",
                ),
                _input(
                    "motion_module",
                    [*_choices("motion_module", "motion_module.pth", "motion", "mm_sd"), NO_MOTION],
                    "What joins the frames: motion_module.pth (1.8 GB), or AnimateDiff's mm_sd_v15_v2.",
                ),
                _input(
                    "pose_guider",
                    _choices("pose_guider", "pose_guider.pth", "pose_guider"),
                    "The network that turns skeleton pictures into features: pose_guider.pth (4 MB).",
                ),
                _input(
                    "vae",
                    _choices("vae", "sd-vae-ft-mse/diffusion_pytorch_model.safetensors", "ft-mse", "vae"),
                    "Stable Diffusion's VAE: sd-vae-ft-mse in diffusers' form, or vae-ft-mse-840000.",
                ),
                _input(
                    "image_encoder",
                    _choices(
                        "image_encoder",
                        "image_encoder/pytorch_model.bin",
                        *("vit-large", "vit_l", "clip-vit-l"),
                    ),
                    "CLIP ViT-L with its projection, as sd-image-variations has it.",
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
            hidden=[io.Hidden.unique_id],
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
        chosen = {
            "denoising_unet": denoising_unet,
            "reference_unet": reference_unet,
            "motion_module": motion_module,
            "pose_guider": pose_guider,
            "vae": vae,
            "image_encoder": image_encoder,
        }
        _check_that_they_belong_together(chosen)
        paths = {
            role: folders.resolve(name, _FOLDERS[role], role)
            for role, name in chosen.items()
            if name != NO_MOTION
        }
        dtype = dtypes.asked_for(weight_dtype)
        # only the denoising U-Net is kept in 8 bits
        whole = torch.float16 if dtype is not None and dtype.itemsize == 1 else dtype
        system = _load(paths, dtype, whole)
        if small.ENTRY in chosen.values():
            say(cls, small.ABOUT)
        family = small.SMALL if reference_unet == small.ENTRY else ""
        return io.NodeOutput(*sockets_of(system, dtype, whole, family))


def _check_that_they_belong_together(chosen: dict[str, str]) -> None:
    """Refuse the small model's VAE without its image encoder and the reverse: a VAE tells nothing by itself.

    What else is mixed is found by its size.

    Raises:
        InputError: for that.
    """
    if (chosen["vae"] == small.ENTRY) != (chosen["image_encoder"] == small.ENTRY):
        raise InputError(
            f"vae '{chosen['vae']}' and image_encoder '{chosen['image_encoder']}'",
            "do not belong together",
            f"choose '{small.ENTRY}' in all six menus, or in none",
        )


def _load(paths: dict[str, Path], dtype: torch.dtype | None, whole: torch.dtype | None) -> Any:
    """The core's five networks; `dtype` for the denoising U-Net, `whole` for the reference net.

    Raises:
        WeightsError: a file is not what it is used for, or files of several models are mixed.
    """
    from ..stableanimator_core.animate_anyone.pipeline import AnimateAnyone
    from ..stableanimator_core.weights import animate_anyone as load
    from ..stableanimator_core.weights.load import load_image_encoder

    system = AnimateAnyone(
        load.load_denoising_unet(paths["denoising_unet"], paths.get("motion_module"), dtype),
        load.load_reference_net(paths["reference_unet"], whole),
        load.load_pose_guider(paths["pose_guider"], torch.float32),
        load.load_image_vae(paths["vae"]),
        load_image_encoder(paths["image_encoder"]),
    )
    load.check_sizes(system)
    return system


def sockets_of(
    system: Any, unet_dtype: torch.dtype | None, net_dtype: torch.dtype | None, family: str = ""
) -> tuple[Any, ...]:
    """The node's outputs from the core's five networks, whose U-Nets are in these dtypes or not yet decided on."""
    storage, compute = dtypes.store(system.denoising_unet, unet_dtype)
    net_storage, net_compute = dtypes.store(system.reference_net, net_dtype)
    return (
        anyone_patcher(system.denoising_unet, storage, compute),
        clip_vision_of(system.image_encoder),
        ImageVAE(system.vae),
        ManagedReferenceNet(system.reference_net, net_compute or net_storage, family),
        ManagedNetwork(system.pose_guider),
    )


def _input(name: str, files: list[str], tooltip: str) -> Any:
    there, own = small.anyone_installed(), folders.denoising_unet_is_installed()
    return with_small_model(name, files, tooltip, there=there, own=own)


def _choices(role: str, official: str, *words: str) -> list[str]:
    """As `folders.file_choices`, the official name first wherever it lies."""
    names = folders.file_choices(_FOLDERS[role], official, *words)
    return sorted(names, key=lambda name: not (name == official or name.endswith(f"/{official}")))
