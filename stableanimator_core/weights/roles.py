"""Which model a state dict is, told from its keys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

Keys = Collection[str]


@dataclass(frozen=True)
class Kind:
    """One recognisable family of weight files.

    Attributes:
        role: what it serves as here ("unet", "pose_net", "face_encoder", "face_recognizer", "vae", "image_encoder",
            "svd"; of Animate Anyone "denoising_unet", "reference_unet", "motion_module", "pose_guider", "image_vae"),
            or "" if nothing here uses it.
        label: its name in messages.
        fits: whether a set of keys is of this family.
    """

    role: str
    label: str
    fits: Callable[[Keys], bool]


def _has(*endings_or_keys: str) -> Callable[[Keys], bool]:
    return lambda keys: all(name in keys for name in endings_or_keys)


def _contains(*parts: str) -> Callable[[Keys], bool]:
    return lambda keys: all(any(part in key for key in keys) for part in parts)


_MOTION = _contains("motion_modules.0.temporal_transformer.")
_IMAGE_UNET = _contains("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")

# The first that fits counts, so the narrower families stand before the wider ones.
KINDS = (
    Kind(
        "svd",
        "the single-file Stable Video Diffusion checkpoint",
        _contains("first_stage_model.", ".time_stack."),
    ),
    Kind(
        "unet",
        "StableAnimator's U-Net",
        _contains("temporal_transformer_blocks.", ".processor.id_to_k.weight"),
    ),
    Kind("", "a Stable Video Diffusion U-Net without ID adapter", _contains("temporal_transformer_blocks.")),
    Kind("pose_net", "StableAnimator's PoseNet", _has("conv_layers.0.weight", "final_proj.weight", "scale")),
    Kind(
        "face_encoder", "StableAnimator's Face Encoder", _has("proj.0.weight", "fusion_model.proj_in.weight")
    ),
    Kind(
        "face_recognizer", "an ArcFace recogniser (IResNet)", _has("layer1.0.prelu.weight", "features.weight")
    ),
    Kind("vae", "Stable Video Diffusion's VAE", _has("decoder.time_conv_out.weight")),
    Kind("vae", "Stable Video Diffusion's VAE", _contains("decoder.conv_out.time_mix_conv.weight")),
    Kind("image_encoder", "a CLIP image encoder", _has("visual_projection.weight")),
    Kind(
        "image_encoder",
        "a CLIP image encoder",
        _contains("visual.transformer.resblocks.0.attn.in_proj_weight"),
    ),
    Kind("", "a Stable Diffusion checkpoint", _contains("model.diffusion_model.", "first_stage_model.")),
    Kind(
        "denoising_unet",
        "Animate Anyone's denoising U-Net with motion modules",
        lambda keys: _MOTION(keys) and "conv_out.weight" in keys,
    ),
    Kind("motion_module", "Animate Anyone's motion module", _MOTION),
    Kind(
        "pose_guider",
        "Animate Anyone's pose guider",
        _has("conv_in.weight", "blocks.0.weight", "conv_out.weight"),
    ),
    Kind("pose_guider", "the paper's pose guider", _has("convs.0.weight", "projection.weight")),
    Kind(
        "image_vae",
        "a Stable Diffusion VAE without temporal decoder",
        _has("decoder.mid_block.resnets.0.norm1.weight"),
    ),
    Kind(
        "image_vae",
        "a Stable Diffusion VAE without temporal decoder",
        _has("decoder.mid.block_1.norm1.weight"),
    ),
    Kind(
        "denoising_unet",
        "an image U-Net (Stable Diffusion's, or Animate Anyone's denoising one)",
        lambda keys: _IMAGE_UNET(keys) and "conv_out.weight" in keys,
    ),
    Kind("reference_unet", "Animate Anyone's reference U-Net", _IMAGE_UNET),
    Kind("", "a LoRA", _contains("lora_")),
)


def kind_of(keys: Keys) -> Kind | None:
    """The first family of `KINDS` that fits, or None."""
    keys = set(keys)
    return next((kind for kind in KINDS if kind.fits(keys)), None)
