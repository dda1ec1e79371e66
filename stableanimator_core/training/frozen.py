"""The networks that training only asks: the VAE's encoder and CLIP's image encoder.

Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: n pictures, H W pixels, h w latent pixels, d token width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..models.vae import SCALING_FACTOR
from ..weights.load import load_image_encoder, load_vae
from .settings import Networks

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionModelWithProjection


class Posterior(NamedTuple):
    """The VAE's normal distribution over latents, before the scaling factor: mean and deviation, each [n 4 h w]."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, float32."""
        return self.mean.float() + self.std.float() * noise

    def target(self, noise: Tensor) -> Tensor:
        """A sample as the U-Net predicts it: times the scaling factor."""
        return self.sample(noise) * SCALING_FACTOR


@dataclass
class Frozen:
    """VAE and image encoder, in eval mode and without gradients."""

    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection

    @classmethod
    def load(cls, networks: Networks, device: torch.device | str, dtype: torch.dtype) -> Frozen:
        """From the files that the settings name.

        Raises:
            WeightsError: a file is missing, damaged or another model.
        """
        vae_path, image_encoder_path = paths(networks)
        vae, image_encoder = load_vae(vae_path, dtype), load_image_encoder(image_encoder_path, dtype)
        return cls(_placed(vae, device), _placed(image_encoder, device))

    @property
    def picture_size(self) -> int:
        """Side of the square that the image encoder takes, in pixels."""
        return int(self.image_encoder.config.image_size)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> Posterior:
        """Pictures [n 3 H W] in [-1, 1] to their posteriors."""
        distribution: Any = self.vae.encode(_like(pixels, self.vae)).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        return Posterior(distribution.mean, distribution.std)

    @torch.no_grad()
    def image_embedding(self, pixels: Tensor) -> Tensor:
        """Pictures from `preprocess.clip_pixels` [n 3 s s] to CLIP's projected embeddings, float32 [n d]."""
        return self.image_encoder(_like(pixels, self.image_encoder)).image_embeds.float()


def paths(networks: Networks) -> tuple[Path, Path]:
    """Where the VAE and the image encoder are read from; `config` has checked that they are named."""
    return networks.vae or networks.svd or Path(), networks.image_encoder or networks.svd or Path()


def _placed(network: Any, device: torch.device | str) -> Any:
    return network.to(device).eval().requires_grad_(False)


def _like(tensor: Tensor, network: Any) -> Tensor:
    return tensor.to(next(network.parameters()))
