"""Pictures into what the networks read: CLIP pixels, reference pixels, pose pixels.

The three resizes differ, as in the official code: CLIP sees the picture squashed to a square after a Gaussian blur
(diffusers' SVD pipeline), the VAE sees Lanczos, PoseNet bicubic.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SIZE_MULTIPLE = 64


def check_size(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> None:
    """Refuse output sizes that a network cannot work at.

    Args:
        height: of the output in pixels.
        width: likewise.
        multiple: what both sides must be multiples of; SVD's U-Net halves three times after the VAE's eighth.

    Raises:
        InputError: a side is not a positive multiple; names the nearest size that is.
    """
    if height % multiple or width % multiple or min(height, width) < multiple:
        nearest = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise InputError(
            "size",
            f"{width} x {height} is not a multiple of {multiple} on both sides",
            f"use {nearest[0]} x {nearest[1]}, the nearest that is",
        )


def check_pictures(images: Tensor, what: str) -> Tensor:
    """Pictures as [f H W 3] in 0..1, refused if they are anything else.

    Args:
        images: ComfyUI IMAGE, [f H W 3], 0..1; one picture may come without its first axis; alpha is dropped.
        what: the input's name, for the message.

    Raises:
        InputError: wrong shape, no frame, NaN or infinite pixels.
    """
    if images.dim() == 3:
        images = images[None]
    if images.dim() != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise InputError(
            what, f"has the shape {list(images.shape)}", "give pictures as [frames, height, width, 3]"
        )
    if not torch.isfinite(images).all():
        bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
        raise InputError(
            what, f"has NaN or infinite pixels in frame {bad[0]}", "check the node that made the picture"
        )
    return images[..., :3].float()


def check_photo(image: np.ndarray) -> np.ndarray:
    """A photo [H W 3], refused if a side is under two pixels: blurring mirrors the picture at its border.

    Raises:
        InputError: too small.
    """
    if min(image.shape[:2]) < 2:
        raise InputError("image", f"is {image.shape[1]} x {image.shape[0]} pixels", "give a photo")
    return image


def to_uint8(images: Tensor) -> np.ndarray:
    """[f H W 3] in 0..1 -> uint8 [f H W 3] RGB, rounded."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def from_uint8(images: np.ndarray) -> Tensor:
    """uint8 [f H W 3] RGB -> float32 [f H W 3] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 255


def clip_pixels(image: np.ndarray, size: int = 224) -> Tensor:
    """One picture for CLIP: blurred as much as the shrinking asks, squashed to a square, normalised.

    Args:
        image: uint8 [H W 3] RGB at its original size and aspect.
        size: side of the square.

    Returns:
        float32 [1 3 size size].
    """
    pixels = from_uint8(image).permute(2, 0, 1)[None] * 2 - 1
    pixels = _shrink_antialiased(pixels, size)
    return normalise_for_clip((pixels + 1) / 2)


def normalise_for_clip(pixels: Tensor) -> Tensor:
    """[b 3 H W] in [0, 1] with CLIP's mean taken off and divided by its deviation, channel by channel."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def reference_pixels(image: np.ndarray, height: int, width: int) -> Tensor:
    """The reference for the VAE: uint8 [H W 3] RGB -> Lanczos -> float32 [1 3 height width] in [-1, 1]."""
    return resized(image[None], height, width, Image.Resampling.LANCZOS) * 2 - 1


def resized(images: np.ndarray, height: int, width: int, resample: Image.Resampling) -> Tensor:
    """Pillow's resize of uint8 [f H W 3] RGB, each picture by itself -> float32 [f 3 height width] in [0, 1]."""
    if images.shape[1:3] != (height, width):
        images = np.stack([np.array(Image.fromarray(x).resize((width, height), resample)) for x in images])
    return from_uint8(images).permute(0, 3, 1, 2)


def pose_pixels(poses: np.ndarray, height: int, width: int) -> Tensor:
    """Skeleton pictures for PoseNet: uint8 [f H W 3] RGB -> bicubic -> float32 [f 3 height width] in [-1, 1].

    Raises:
        InputError: see `check_pose_aspect`.
    """
    check_pose_aspect(poses, height, width)
    return resized(poses, height, width, Image.Resampling.BICUBIC) * 2 - 1


def check_pose_aspect(poses: np.ndarray, height: int, width: int) -> None:
    """Refuse skeleton pictures [f H W 3] that the output size would stretch.

    Raises:
        InputError: their aspect is not that of the output.
    """
    pose_height, pose_width = poses.shape[1:3]
    if abs(pose_height * width - pose_width * height) > 0.02 * pose_height * width:
        raise InputError(
            "pose images",
            f"are {pose_width} x {pose_height}, the output is {width} x {height}: the skeleton would be stretched",
            "draw the skeleton at the output size (PoseDraw), or crop it to the same aspect",
        )


def _shrink_antialiased(pixels: Tensor, size: int) -> Tensor:
    """Gaussian blur by the shrink factor, then bicubic with aligned corners; no clamp."""
    for axis in (3, 2):
        factor = pixels.shape[axis] / size
        sigma = max((factor - 1) / 2, 0.001)
        pixels = _blur(pixels, axis, sigma, width=int(max(4 * sigma, 3)) | 1)
    return F.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=True)


def _blur(pixels: Tensor, axis: int, sigma: float, width: int) -> Tensor:
    """Depth-wise Gaussian of odd `width` along one axis of [b c H W], mirrored at the border."""
    positions = torch.arange(width, dtype=pixels.dtype) - width // 2
    kernel = torch.exp(-(positions**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    shape, pad = (
        ((1, width), (width // 2,) * 2 + (0, 0)) if axis == 3 else ((width, 1), (0, 0) + (width // 2,) * 2)
    )
    channels = pixels.shape[1]
    weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
    return F.conv2d(F.pad(pixels, pad, mode="reflect"), weight, groups=channels)
