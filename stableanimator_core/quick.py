"""The shortest way from files to a clip, for scripts and notebooks; everything has its defaults.

For more than the defaults use what these few functions use: `pipeline.Animator`, `face.embed`, `pose`.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import InputError, WeightsError
from .pipeline import Animator


def load_animator(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Animator:
    """The networks in `folder`, in the official tree or flat, as .pth or .safetensors.

    Raises:
        WeightsError: one is missing (names what was searched), damaged, or another model.
    """
    roles = ("unet", "pose_net", "face_encoder", "svd")
    return Animator.load(*(_found(role, folder) for role in roles), dtype=dtype)


def open_photo(path: str | Path) -> np.ndarray:
    """A picture as uint8 [H W 3] RGB.

    Raises:
        InputError: no such file, or not a picture.
    """
    try:
        return np.array(Image.open(path).convert("RGB"))
    except OSError as error:
        raise InputError(str(path), "cannot be read as a picture", "name an existing PNG or JPEG") from error


def photo_identity(photo: np.ndarray, folder: str | Path) -> Tensor:
    """The identity [512] of the largest face in `photo`, by antelopev2's two networks below `folder`.

    Raises:
        NoFaceError: no face is found.
        WeightsError: a network is missing or damaged.
    """
    from .face.analysis import FaceDetector
    from .face.embed import embed_face
    from .face.recognisers import OnnxRecogniser

    detector, recogniser = (_found(role, folder) for role in ("face_detector", "face_embedder"))
    face = embed_face([photo], OnnxRecogniser(recogniser), FaceDetector(detector), no_face="error")
    return cast(Tensor, face.identity)  # without a face it has raised


def skeletons(path: str | Path, height: int, width: int) -> np.ndarray:
    """Skeleton pictures uint8 [f H W 3] of a POSE_KEYPOINT file, its frame shown whole.

    Raises:
        InputError: no such file, or not OpenPose JSON.
    """
    from .pose.draw import draw_clip
    from .pose.fit import fit_frames
    from .pose.keypoints import load_pose_json

    return draw_clip(fit_frames(load_pose_json(path), height, width), height, width)


def _found(role: str, folder: str | Path) -> Path:
    from .weights.locate import KNOWN_FILES, find_file, not_found_message

    path = find_file(role, [folder])
    if path is None:
        message = not_found_message(role, [folder])
        raise WeightsError(
            KNOWN_FILES[role].label, f"is missing ({message})", "get it, or name another folder"
        )
    return path
