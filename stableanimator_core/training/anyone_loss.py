"""What Animate Anyone's training minimises: the error of v, weighed by the signal-to-noise ratio.

Salimans and Ho, arXiv:2202.00512 (v); Hang et al., Min-SNR, arXiv:2303.09556 (the weight); Lin et al.,
arXiv:2305.08891 (a last time without signal). Code: `train_stage_1.py`, MooreThreads/Moore-AnimateAnyone @ a914ef3.
Axes: b samples, f frames, c channels, h w latent pixels. One time per sample.
"""

from __future__ import annotations

from torch import Tensor


def offset_noise(noise: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Noise [b f c h w] with something that each channel of a sample has in common, standard normal draws [b c]."""
    return noise + strength * draws[:, None, :, None, None]


def noised(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """sqrt(alpha) latents + sqrt(1 - alpha) noise, both [b f c h w]; `alpha` [b] are cumulative."""
    alpha = _per_sample(alpha)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """The target v = sqrt(alpha) noise - sqrt(1 - alpha) latents; arguments as `noised`."""
    alpha = _per_sample(alpha)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def loss_weight(alpha: Tensor, gamma: float) -> Tensor:
    """min(SNR + 1, gamma) / (SNR + 1), same shape; SNR + 1 is 1 / (1 - alpha). With gamma 0 all weights are 1."""
    return (gamma * (1 - alpha)).clamp(max=1) if gamma else alpha.new_ones(alpha.shape)


def weighted_loss(prediction: Tensor, target: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """Mean of weight * (prediction - target)^2, a scalar in float32; [b f c h w], alpha [b]."""
    error = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    return (loss_weight(alpha.float(), gamma) * error).mean()


def _per_sample(alpha: Tensor) -> Tensor:
    return alpha.view(-1, 1, 1, 1, 1)
