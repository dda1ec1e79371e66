"""Training pictures from files, as the official loader makes them: bicubic to the training size, aspect not kept.

Code: `animation/dataset/animation_dataset.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: f frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError

Cut = tuple[float, float, float, float]
"""Part of a picture: left, top, right, bottom as shares of its width and height."""


def read_rgb(path: Path, size: tuple[int, int] | None = None, cut: Cut | None = None) -> np.ndarray:
    """A picture as uint8 [H W 3] RGB.

    Args:
        path: the file.
        size: (height, width) to resize to, bicubic.
        cut: the part to take, before resizing; needs `size`.

    Raises:
        InputError: the file is missing or damaged.
    """
    return np.array(_opened(path, "RGB", size, cut))


def read_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """A face mask as float32 [H W] in [0, 1]; edges get values between when resized. Errors as `read_rgb`."""
    return np.array(_opened(path, "L", size), dtype=np.float32) / 255


def signed(pictures: np.ndarray | Sequence[np.ndarray]) -> Tensor:
    """uint8 [f H W 3] to float32 [f 3 H W] in [-1, 1]."""
    array = np.ascontiguousarray(np.stack(list(pictures)))
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def _opened(path: Path, mode: str, size: tuple[int, int] | None, cut: Cut | None = None) -> Image.Image:
    try:
        with Image.open(path) as picture:
            converted = picture.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        remedy = "mend or remove this frame; data.check_pixels = true lists all such files at the start"
        raise InputError(str(path), f"cannot be read ({type(error).__name__}: {error})", remedy) from error
    if size is None or (cut is None and converted.size == (size[1], size[0])):
        return converted
    width, height = converted.size
    box = None if cut is None else (cut[0] * width, cut[1] * height, cut[2] * width, cut[3] * height)
    return converted.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
