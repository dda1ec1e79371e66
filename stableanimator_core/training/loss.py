"""What training minimises: the EDM loss of the predicted clean latents, face pixels counted twice.

Papers: Tu et al., StableAnimator, arXiv:2411.17697; Karras et al. 2022, arXiv:2206.00364 (sigma_data = 1).
Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: b videos, f frames, h w latent pixels, H W pixels. One noise level per video.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..sigmas import predicted_x0


def per_video(sigma: Tensor) -> Tensor:
    """Noise levels [b] as [b 1 1 1 1], to be used with latents [b f 4 h w]."""
    return sigma.view(-1, 1, 1, 1, 1)


def noised(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Latents with noise, both [b f 4 h w], at the levels [b]."""
    return latents + per_video(sigma) * noise


def loss_weight(sigma: Tensor) -> Tensor:
    """(1 + sigma^2) / sigma^2, same shape: with it an error of x0 counts as the error of v it comes from."""
    return (1 + sigma**2) / sigma**2


def masks_on_latents(face_masks: Tensor, height: int, width: int) -> Tensor:
    """Face masks [b f 1 H W] in [0, 1] at latent size [b f 1 h w], by nearest neighbour."""
    small = F.interpolate(face_masks.flatten(0, 1), size=(height, width), mode="nearest")
    return small.unflatten(0, face_masks.shape[:2])


def masked_loss(
    v_prediction: Tensor, noisy_latents: Tensor, latents: Tensor, sigma: Tensor, face_masks: Tensor
) -> Tensor:
    """Mean of weight * (x0 - latents)^2 * (1 + mask), a scalar computed in float32.

    The sum is divided by the number of elements, not by the sum of the mask's weights.

    Args:
        v_prediction: the U-Net's output [b f 4 h w].
        noisy_latents: what it was given, before scaling [b f 4 h w]; see `noised`.
        latents: clean target, times the VAE's scaling factor [b f 4 h w].
        sigma: noise levels [b].
        face_masks: 1 where a face is, at pixel size [b f 1 H W].
    """
    sigma = per_video(sigma.float())
    latents = latents.float()
    x0 = predicted_x0(noisy_latents.float(), v_prediction.float(), sigma)
    mask = masks_on_latents(face_masks.float(), *latents.shape[-2:])
    return (loss_weight(sigma) * (x0 - latents) ** 2 * (1 + mask)).mean()
