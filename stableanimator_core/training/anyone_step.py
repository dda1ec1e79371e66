"""One training step of Animate Anyone: conditions, noise, prediction, loss.

Paper: Hu et al., Animate Anyone, arXiv:2311.17117.
Code: `train_stage_1.py`, `train_stage_2.py`, MooreThreads/Moore-AnimateAnyone @ a914ef3.
Difference: networks that do not take part in a step (the reference's, where conditions are dropped) still see the
optimiser's momentum and weight decay; see `trainer`.
Axes: b samples, f frames, H W pixels, h w latent pixels, d token width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..animate_anyone.attention import Reference
from ..animate_anyone.ddim import alphas_cumprod
from ..animate_anyone.denoising_unet import denoise
from ..animate_anyone.reference_net import write_reference
from .anyone_loss import noised, offset_noise, velocity, weighted_loss
from .anyone_settings import Anyone
from .frozen import Frozen
from .step import Batch, encoded


class AnyoneNetworks(nn.Module):
    """All networks of Animate Anyone as one module, so that accelerate wraps and synchronises them as one.

    Args:
        denoising_unet: from `build_denoising_unet`; with motion modules in stage 2.
        reference_unet: from `build_reference_net`.
        pose_guider: from `build_pose_guider`.
        settings: of noise and loss.
        empty_token: [d], stands for the image token where conditions are dropped.
    """

    alphas: Tensor
    empty_token: Tensor

    def __init__(
        self,
        denoising_unet: nn.Module,
        reference_unet: nn.Module,
        pose_guider: nn.Module,
        settings: Anyone,
        empty_token: Tensor,
    ):
        super().__init__()
        self.denoising_unet, self.reference_unet = denoising_unet, reference_unet
        self.pose_guider, self.settings = pose_guider, settings
        self.register_buffer("alphas", alphas_cumprod(settings.betas), persistent=False)
        self.register_buffer("empty_token", empty_token, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            batch: from `conditions_of`.
        """
        latents, noise, timestep = batch["latents"], batch["noise"], batch["timestep"]
        noise = offset_noise(noise, batch["noise_offset"], self.settings.noise_offset)
        alpha = self.alphas[timestep]
        token, reference = batch["image_embedding"], None
        if batch["dropped"][0]:
            token = self.empty_token.expand_as(token)
        else:
            reference = Reference(write_reference(self.reference_unet, batch["reference_latents"], token))
        prediction = denoise(
            self.denoising_unet,
            noised(latents, noise, alpha),
            timestep,
            token,
            pose_features=self.pose_guider(batch["poses"]),
            reference=reference,
        )
        return weighted_loss(prediction, velocity(latents, noise, alpha), alpha, self.settings.snr_gamma)


def conditions_of(sample: Batch, frozen: Frozen | None, _sigma_dtype: torch.dtype = torch.float32) -> Batch:
    """What `AnyoneNetworks` takes, from a collated sample.

    Args:
        sample: from `anyone_samples.AnyoneSamples`, with a first axis b, on the training device.
        frozen: encodes the pictures; None where the sample comes from the cache.

    Returns:
        latents [b f 4 h w] and reference_latents [b 4 h w], both scaled, image_embedding [b 1 d],
        poses [b f 3 H W] in [0, 1], noise, noise_offset [b 4], timestep [b], dropped [b], all alike.
    """
    target, reference, embedding = encoded(sample, frozen)
    return {
        "latents": target.target(sample["posterior_noise"]),
        "reference_latents": reference.target(sample["reference_posterior_noise"]),
        "image_embedding": embedding,
        "poses": sample["poses"].permute(0, 1, 4, 2, 3).float() / 255,
        **{name: sample[name] for name in ("noise", "noise_offset", "timestep", "dropped")},
    }
