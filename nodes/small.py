"""The small demo model that comes with the pack: its menu entry, its files, and what must not be mixed with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..stableanimator_core import small_model
from ..stableanimator_core.errors import InputError, WeightsError

ENTRY = "small demo model (puppets, 128x128)"
ABOUT = (
    "the small demo model animates the drawn figures of Demo Puppet, at 128 x 128; for photos of people install the "
    "official files"
)
SMALL, OFFICIAL = "small", "official"
_FILES = {
    "unet": "unet.safetensors",
    "pose_net": "pose_net.safetensors",
    "face_encoder": "face_encoder.safetensors",
    "recognizer": "face_recognizer.safetensors",
    "svd": "SVD",
    "denoising_unet": "animate_anyone/denoising_unet.safetensors",
    "reference_unet": "animate_anyone/reference_unet.safetensors",
    "motion_module": "animate_anyone/motion_module.safetensors",
    "pose_guider": "animate_anyone/pose_guider.safetensors",
    "vae": "SVD",
    "image_encoder": "SVD",
}
_NAMES = {SMALL: "the small demo model's", OFFICIAL: "the official one"}
_OFFICIAL_TOKEN_WIDTH = 1024  # of face_encoder.pth; the small one's is narrower
_OFFICIAL_BLOCKS = [3, 13, 30, 3]  # of glintr100, level by level
_SIDES = (96, 192)  # in pixels, around the 128 it was trained at


def installed() -> bool:
    """True if all files of the small model are there: a clone may lack them."""
    return not small_model.missing(small_model.folder(), judges=False)


def anyone_installed() -> bool:
    """True if all files of the small Animate Anyone are there."""
    return not small_model.missing_anyone(small_model.folder())


def path_of(role: str) -> Path:
    """The small model's file (of SVD: folder) for an input.

    Raises:
        WeightsError: it is not there.
    """
    path = small_model.folder() / _FILES.get(role, "no such file")
    if not path.exists():
        raise WeightsError(
            role, f"'{ENTRY}' is not in this copy of the pack", "install the pack again, or choose a file"
        )
    return path


def note() -> str:
    """One line about the small model for a report."""
    if installed():
        too = "; Animate Anyone has one too" if anyone_installed() else ""
        return f"comes with the pack: {ABOUT}{too}"
    lacking = ", ".join(small_model.missing(small_model.folder(), judges=False))
    return f"small demo model: not complete in this copy of the pack; missing: {lacking}"


def family_of_face_encoder(entry: str, network: Any) -> str:
    """SMALL if it is the shipped file, OFFICIAL if it has the official size, "" if it is somebody's own."""
    if entry == ENTRY:
        return SMALL
    return OFFICIAL if network.token_width == _OFFICIAL_TOKEN_WIDTH else ""


def family_of_recogniser(entry: str, network: Any | None) -> str:
    """As `family_of_face_encoder`; `network` is None for an ONNX file, which is no small model's."""
    if entry == ENTRY:
        return SMALL
    if network is None:
        return OFFICIAL
    blocks = [len(network.get_submodule(f"layer{level + 1}")) for level in range(network.num_levels)]
    return OFFICIAL if blocks == _OFFICIAL_BLOCKS else ""


def expect_same_family(
    what: str, family: str, other_what: str, other: str, where: str = "Face Embed and Load Animator Models"
) -> None:
    """Refuse what comes from two different models, where both are known.

    Raises:
        InputError: one is the small model's, the other the official one; names both.
    """
    if family and other and family != other:
        raise InputError(
            what,
            f"is {_NAMES[family]}, {other_what} is {_NAMES[other]}",
            f"choose '{ENTRY}' in {where}, or in neither",
        )


def size_warning(family: str, height: int, width: int) -> str:
    """What to tell about a video size that the small model has never seen; "" if there is nothing to tell."""
    low, high = _SIDES
    if family != SMALL or (low <= height <= high and low <= width <= high):
        return ""
    return f"the small demo model knows 128 x 128 only; {width} x {height} will look wrong"
