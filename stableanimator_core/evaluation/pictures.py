"""How far frames are from the true ones: PSNR, SSIM, gradients, features, and changes in time.

Sources: Wang et al. 2004, Image quality assessment (SSIM, Gaussian window of deviation 1.5, 11 wide); Xue et al.,
Gradient Magnitude Similarity Deviation, arXiv:1308.3052; Zhang et al., LPIPS, arXiv:1801.03924.
Axes: f frames, H W pixels, c channels, h w places of a feature map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..pose.draw import Picture
from ..preprocess import from_uint8

Array = NDArray[np.float64]

BEST_PSNR = 100.0
"""What equal pictures get, dB."""
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5
_GRADIENT_CONSTANT = 170.0
_LUMA = np.array([0.299, 0.587, 0.114])


def psnr(frames: Picture, truth: Picture) -> Array:
    """[f] peak signal-to-noise ratio in dB, of uint8 pictures [f H W 3]."""
    error = np.square(frames.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return np.minimum(BEST_PSNR, 10 * np.log10(255**2 / np.maximum(error, 1e-9)))


def psnr_in_boxes(frames: Picture, truth: Picture, boxes: Array) -> Array:
    """[f] the same within boxes [f 4] (left, top, right, bottom, rounded to pixels); NaN where there is none."""
    result = np.full(len(frames), np.nan)
    for number, box in enumerate(boxes):
        if np.isfinite(box).all():
            left, top, right, bottom = np.round(box).astype(int)
            part = np.s_[number : number + 1, top:bottom, left:right]
            result[number] = psnr(frames[part], truth[part])[0]
    return result


def ssim(frames: Picture, truth: Picture) -> Array:
    """[f] structural similarity, the mean of the three channels; where the window fits into the picture."""
    from scipy.ndimage import gaussian_filter

    def smooth(values: Array) -> Array:
        sigma = (0, _WINDOW_SIGMA, _WINDOW_SIGMA, 0)
        return gaussian_filter(values, sigma, truncate=_WINDOW_RADIUS / _WINDOW_SIGMA)

    a, b = frames.astype(np.float64), truth.astype(np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    values /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    inner = slice(_WINDOW_RADIUS, -_WINDOW_RADIUS)
    return values[:, inner, inner].mean(axis=(1, 2, 3))


def gradient_deviation(frames: Picture, truth: Picture) -> Array:
    """[f] GMSD: how unevenly edges agree; 0 for equal pictures. No network takes part in it."""
    a, b = _edges(frames), _edges(truth)
    similarity = (2 * a * b + _GRADIENT_CONSTANT) / (a * a + b * b + _GRADIENT_CONSTANT)
    return similarity.std(axis=(1, 2))


def _edges(frames: Picture) -> Array:
    """[f H/2 W/2] gradient magnitude of the brightness at half size."""
    from scipy.ndimage import prewitt

    grey = frames.astype(np.float64) @ _LUMA
    height, width = (side - side % 2 for side in grey.shape[1:])
    halves = grey[:, :height, :width].reshape(len(grey), height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    # picture by picture: prewitt also smooths across every other axis, so across frames
    return np.stack([np.hypot(prewitt(half, axis=0) / 3, prewitt(half, axis=1) / 3) for half in halves])


def change_error(frames: Picture, truth: Picture) -> float:
    """Mean absolute difference of the changes from frame to frame, in levels of 255: flicker and wrong motion."""
    return float(
        np.abs(np.diff(frames.astype(np.float64), axis=0) - np.diff(truth.astype(np.float64), axis=0)).mean()
    )


@torch.no_grad()
def feature_distance(encoder: Any, frames: Picture, truth: Picture) -> Array:
    """[f] distance in the feature maps of a VAE's encoder, built like LPIPS but without learned weights.

    Maps are those after the first convolution and after each level. Features are scaled to length 1 at every place;
    squared distances are averaged over places, then over maps: 0 for equal pictures, 4 at most.

    Args:
        encoder: `vae.encoder` of an AutoencoderKLTemporalDecoder.
        frames: uint8 [f H W 3].
        truth: likewise.
    """
    pairs = zip(_feature_maps(encoder, frames), _feature_maps(encoder, truth), strict=True)
    layers = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
    return torch.stack(layers).mean(dim=0).double().cpu().numpy()


def _feature_maps(encoder: Any, frames: Picture) -> Iterator[Tensor]:
    x = (from_uint8(frames).permute(0, 3, 1, 2) * 2 - 1).to(next(encoder.parameters()))
    x = encoder.conv_in(x)
    yield torch.nn.functional.normalize(x.float(), dim=1)
    for block in encoder.down_blocks:
        x = block(x)
        yield torch.nn.functional.normalize(x.float(), dim=1)
