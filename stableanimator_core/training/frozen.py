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
from ..weights.animate_anyone import load_image_vae, read_image_vae
from ..weights.files import read_weights
from ..weights.load import load_image_encoder, load_vae
from ..weights.roles import kind_of
from ..weights.svd import read_vae
from .settings import Networks

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
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

    vae: AutoencoderKLTemporalDecoder | AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection

    @classmethod
    def load(cls, networks: Networks, device: torch.device | str, dtype: torch.dtype) -> Frozen:
        """From the files that the settings name.

        Raises:
            WeightsError: a file is missing, damaged or another model.
        """
        vae_path, image_encoder_path = paths(networks)
        load = load_image_vae if _is_image_vae(vae_path) else load_vae
        vae, image_encoder = load(vae_path, dtype), load_image_encoder(image_encoder_path, dtype)
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


def vae_file(networks: Networks) -> Path:
    """The file the VAE is read from; raises WeightsError as `Frozen.load`."""
    path = paths(networks)[0]
    return (read_image_vae if _is_image_vae(path) else read_vae)(path).source


def decoded_singly(vae: Any, latents: Tensor) -> Any:
    """What either VAE's `decode` gives for pictures [n 4 h w] that know nothing of each other."""
    temporal = hasattr(vae.decoder, "time_conv_out")
    return vae.decode(latents, num_frames=1) if temporal else vae.decode(latents)


def _is_image_vae(path: Path) -> bool:
    """Whether this is a file of Stable Diffusion's VAE, which has no temporal decoder."""
    if not path.is_file():
        return False
    kind = kind_of(read_weights(path).state.keys())
    return kind is not None and kind.role == "image_vae"


def _placed(network: Any, device: torch.device | str) -> Any:
    return network.to(device).eval().requires_grad_(False)


def _like(tensor: Tensor, network: Any) -> Tensor:
    return tensor.to(next(network.parameters()))
