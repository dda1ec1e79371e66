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
JUDGE_FILES = ("judge.safetensors", "joints.safetensors")
"""What only judges: a second face recogniser and a joint finder."""


def folder() -> Path:
    """The folder of the shipped weights, whether they are there or not."""
    return Path(__file__).resolve().parents[1] / "weights" / "small"


def missing(weights: Path, *, judges: bool = True) -> list[str]:
    """Names of `FILES` (and `JUDGE_FILES`) that the folder `weights` lacks."""
    wanted = FILES + JUDGE_FILES if judges else FILES
    return [name for name in wanted if not (weights / name).is_file()]
