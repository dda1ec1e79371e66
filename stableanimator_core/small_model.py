"""The small demo model that comes with the pack: where its files are, and whether they are there."""

from __future__ import annotations

from pathlib import Path

FILES = (
    "unet.safetensors",
    "pose_net.safetensors",
    "face_encoder.safetensors",
    "face_recognizer.safetensors",
    "SVD/vae/diffusion_pytorch_model.safetensors",
    "SVD/image_encoder/model.safetensors",
)
"""What animates, and the recogniser that identities come from."""
ANYONE_FILES = (
    "animate_anyone/denoising_unet.safetensors",
    "animate_anyone/reference_unet.safetensors",
    "animate_anyone/motion_module.safetensors",
    "animate_anyone/pose_guider.safetensors",
    "SVD/vae/diffusion_pytorch_model.safetensors",
    "SVD/image_encoder/model.safetensors",
)
"""The same for Animate Anyone; it shares StableAnimator's VAE and image encoder."""
JUDGE_FILES = ("judge.safetensors", "joints.safetensors")
"""What only judges: a second face recogniser and a joint finder."""


def folder() -> Path:
    """The folder of the shipped weights, whether they are there or not."""
    return Path(__file__).resolve().parents[1] / "weights" / "small"


def missing(weights: Path, *, judges: bool = True) -> list[str]:
    """Names of `FILES` (and `JUDGE_FILES`) that the folder `weights` lacks."""
    return _lacking(weights, FILES + JUDGE_FILES if judges else FILES)


def missing_anyone(weights: Path) -> list[str]:
    """Names of `ANYONE_FILES` that the folder `weights` lacks."""
    return _lacking(weights, ANYONE_FILES)


def _lacking(weights: Path, wanted: tuple[str, ...]) -> list[str]:
    return [name for name in wanted if not (weights / name).is_file()]
