"""Held-out clips, animated by Animate Anyone with the weights of the moment; in stage 1 every frame by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..animate_anyone.denoising_unet import longest_window
from ..animate_anyone.pipeline import AnimateAnyone, AnyoneOptions
from .anyone_step import AnyoneNetworks
from .frozen import Frozen, decoded_singly
from .settings import Settings
from .validation import Rows, pictures_of
from .videos import Video

_OVERLAP = 4


def opened(
    networks: AnyoneNetworks, settings: Settings, device: torch.device | str
) -> Callable[[Video], Rows]:
    """Animates clips; as `validation.opened`."""
    frozen = Frozen.load(settings.networks, device, torch.float32)
    vae = cast(Any, _Singly(frozen.vae))
    system = AnimateAnyone(
        networks.denoising_unet, networks.reference_unet, networks.pose_guider, vae, frozen.image_encoder
    )

    def animated(video: Video) -> Rows:
        photo, _, truth, poses = pictures_of(video, settings)
        window = min(len(poses), longest_window(networks.denoising_unet) or len(poses))
        options = AnyoneOptions(
            num_steps=settings.validation.num_steps,
            guidance=settings.validation.guidance,
            window_size=window,
            overlap=min(_OVERLAP, window - 1),
            loop="open",
        )
        height, width = photo.shape[:2]
        result = system.animate(photo, poses, height=height, width=width, options=options)
        return truth, poses, result.frames

    return animated


class _Singly(nn.Module):
    """Either VAE as the single pictures' one."""

    def __init__(self, vae: Any):
        super().__init__()
        self.vae, self.encode, self.dtype = vae, vae.encode, vae.dtype

    def decode(self, latents: Tensor) -> Any:
        """As diffusers' AutoencoderKL.decode."""
        return decoded_singly(self.vae, latents)
