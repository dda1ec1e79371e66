"""Animate Anyone's networks from their files, as strictly as StableAnimator's. Stable Diffusion 1.5 is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..animate_anyone.denoising_unet import MOTION
from ..animate_anyone.pipeline import AnimateAnyone
from ..animate_anyone.pose_guider import PaperPoseGuider, PoseGuider
from ..errors import WeightsError
from ..models import vae as vaes
from ..models.image_vae import image_vae_of
from .files import Weights, read_weights
from .load import build_empty, filled, load_image_encoder, load_own, load_vae, model_config
from .precision import FP8_DTYPES, store_in_fp8
from .roles import kind_of
from .svd import Part, configured, not_the_model
from .svd_layout import image_vae_to_diffusers

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

_TRAINING_LEFTOVERS = ("loss.", "model_ema.")
"""Beginnings of entries that old VAE files carry besides the VAE."""


def load_denoising_unet(
    path: str | Path, motion: str | Path | None = None, dtype: torch.dtype | None = None
) -> UNet2DConditionModel:
    """The denoising U-Net with its motion modules.

    Args:
        path: `denoising_unet.pth` (686 keys), or a file that holds the motion modules too.
        motion: `motion_module.pth` or AnimateDiff's `mm_sd_v15_v2.ckpt` (588 keys); it replaces those of `path`.
            Without either the network makes single pictures.
        dtype: float32, float16, bfloat16; float8_e4m3fn or float8_e5m2 keep its matrices in 8 bits and the rest in
            float16; None keeps the file's own.

    Raises:
        WeightsError: no such file, damaged, unsafe, or another model.
    """
    weights, source = read_weights(path), str(path)
    config = model_config("denoising_unet", weights, Path(path))
    if motion is not None:
        modules = read_weights(motion)
        settings = model_config("motion_module", modules, Path(motion))
        filled(
            build_empty("motion_module", settings), modules.state, motion, None
        )  # wrong ones are named here
        widths = settings.pop("widths")
        mid_block = any(place.startswith("mid_block.") for place in widths)
        config = {**config, MOTION: {**settings, "mid_block": mid_block}}
        own = {key: tensor for key, tensor in weights.state.items() if ".motion_modules." not in key}
        weights, source = Weights(own | modules.state), f"{path} with {motion}"
    narrow = dtype if dtype in FP8_DTYPES else None
    unet = filled(
        build_empty("denoising_unet", config), weights.state, source, torch.float16 if narrow else dtype
    )
    return store_in_fp8(unet, narrow) if narrow else unet


def load_reference_net(path: str | Path, dtype: torch.dtype | None = None) -> UNet2DConditionModel:
    """The reference U-Net (`reference_unet.pth`, 682 keys); else as `load_denoising_unet`, without 8 bits."""
    return load_own("reference_unet", path, dtype)


def load_pose_guider(path: str | Path, dtype: torch.dtype | None = None) -> PoseGuider | PaperPoseGuider:
    """The pose guider (`pose_guider.pth`, 16 keys), of any width, also the paper's; else as `load_reference_net`."""
    return load_own("pose_guider", path, dtype)


def read_image_vae(path: str | Path) -> Part:
    """Stable Diffusion's VAE in diffusers' present names, from any of its three namings.

    Raises:
        WeightsError: no such file, or another model.
    """
    path = Path(path)
    weights = read_weights(path)
    state = {key: t for key, t in weights.state.items() if not key.startswith(_TRAINING_LEFTOVERS)}
    kind = kind_of(state.keys())
    if kind is None or kind.role != "image_vae":
        raise not_the_model(path, "VAE of Stable Diffusion (sd-vae-ft-mse)", weights.state)
    state = image_vae_to_diffusers(state)
    config = configured(Weights(state, weights.metadata), path, "AutoencoderKL", vaes.image_config_from)
    return Part(state, config, path)


def load_image_vae(path: str | Path, dtype: torch.dtype | None = None) -> AutoencoderKL:
    """Stable Diffusion's VAE (sd-vae-ft-mse); dtype and errors as `load_reference_net`.

    A folder is Stable Video Diffusion's: its VAE serves if its temporal layers do nothing, as in the small demo model.

    Raises:
        InputError: they do something.
    """
    if Path(path).is_dir():
        return image_vae_of(load_vae(path, dtype))
    part = read_image_vae(path)
    return filled(build_empty("image_vae", part.config), part.state, part.source, dtype)


def load_animate_anyone(
    denoising_unet: str | Path,
    reference_unet: str | Path,
    pose_guider: str | Path,
    vae: str | Path,
    image_encoder: str | Path,
    *,
    motion_module: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> AnimateAnyone:
    """All networks, checked against each other.

    Args:
        denoising_unet: see `load_denoising_unet`.
        reference_unet: see `load_reference_net`.
        pose_guider: see `load_pose_guider`.
        vae: see `load_image_vae`.
        image_encoder: CLIP ViT-L with projection, as of sd-image-variations.
        motion_module: see `load_denoising_unet`.
        dtype: of the weights.

    Raises:
        WeightsError: a file is missing, damaged, not the model it is used for, or of another size than the others.
    """
    system = AnimateAnyone(
        load_denoising_unet(denoising_unet, motion_module, dtype),
        load_reference_net(reference_unet, dtype),
        load_pose_guider(pose_guider, dtype),
        load_image_vae(vae, dtype),
        load_image_encoder(image_encoder, dtype),
    )
    check_sizes(system)
    return system


def check_sizes(system: AnimateAnyone) -> None:
    """Refuse networks that are not of one family.

    Raises:
        WeightsError: names the first that does not fit the denoising U-Net.
    """
    unet, net = _config(system.denoising_unet), _config(system.reference_net)
    pixel = torch.zeros(1, 3, 8, 8).to(next(system.pose_guider.parameters()))
    found = {
        "reference U-Net": (list(net.block_out_channels), list(unet.block_out_channels)),
        "pose guider": (system.pose_guider(pixel).shape[1], unet.block_out_channels[0]),
        "CLIP image encoder": (system.image_encoder.config.projection_dim, unet.cross_attention_dim),
    }
    for name, (has, needs) in found.items():
        if has != needs:
            problem = f"has the width {has}, the denoising U-Net needs {needs}"
            raise WeightsError(name, problem, "use files of the same model")


def _config(network: Any) -> Any:
    return network.config
