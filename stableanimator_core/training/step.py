"""One training step: conditions, noise, prediction, loss.

Paper: Tu et al., StableAnimator, arXiv:2411.17697.
Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Axes: b clips, f frames, H W pixels, h w latent pixels, n tokens, d token width, e identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..conditioning import added_time_ids, join_tokens
from ..models.unet import denoise
from ..sigmas import scale_input, timestep_of
from .dropout import drop_conditions
from .frozen import Frozen, Posterior
from .loss import masked_loss, noised, per_video
from .settings import Training

Batch = dict[str, Tensor]


class TrainedNetworks(nn.Module):
    """All that learns, as one module, so that accelerate wraps and synchronises it as one.

    Args:
        unet: from `build_unet`.
        pose_net: see `models.pose_net`.
        face_encoder: see `models.face_encoder`.
        training: dropout and micro-conditioning.
    """

    def __init__(self, unet: nn.Module, pose_net: nn.Module, face_encoder: nn.Module, training: Training):
        super().__init__()
        self.unet, self.pose_net, self.face_encoder = unet, pose_net, face_encoder
        self.training_settings = training

    def forward(self, batch: Batch) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            batch: from `conditions_of`.
        """
        settings = self.training_settings
        latents, sigma, embedding = batch["latents"], batch["sigma"], batch["image_embedding"]
        noisy = noised(latents, batch["noise"], sigma)
        face_tokens = self.face_encoder(batch["identity"], embedding)  # from the token before dropout
        embedding, image_latents = drop_conditions(
            embedding, batch["image_latents"], batch["drop"], settings.dropout
        )
        repeated = image_latents[:, None].expand(-1, latents.shape[1], -1, -1, -1)
        sample = torch.cat((scale_input(noisy, per_video(sigma)), repeated), dim=2)  # [b f 8 h w]
        ids = added_time_ids(settings.fps, settings.motion_bucket_id, settings.noise_augmentation)
        prediction = denoise(
            self.unet,
            sample,
            timestep_of(sigma),
            join_tokens(embedding, face_tokens),
            ids.to(sigma).repeat(len(sigma), 1),
            pose_features=self.pose_net(batch["poses"]),
        )
        return masked_loss(prediction, noisy, latents, sigma, batch["face_masks"])


def conditions_of(sample: Batch, frozen: Frozen | None, sigma_dtype: torch.dtype = torch.float32) -> Batch:
    """What `TrainedNetworks` takes, from a collated sample.

    Args:
        sample: from `samples.Samples`, with a first axis b, on the training device.
        frozen: encodes the pictures; None where the sample comes from the cache.
        sigma_dtype: the noise levels are rounded to it, as in the official code.

    Returns:
        latents [b f 4 h w] scaled, image_latents [b 4 h w] not scaled, image_embedding [b 1 d], identity [b e],
        poses [b f 3 H W] in [-1, 1], face_masks [b f 1 H W] or at latent size, noise, sigma [b], drop [b].
    """
    target, reference, embedding = encoded(sample, frozen)
    poses = sample["poses"]
    return {
        "latents": target.target(sample["posterior_noise"]),
        "image_latents": reference.sample(sample["reference_posterior_noise"]),
        "image_embedding": embedding,
        "identity": sample["identity"],
        "poses": poses if poses.is_floating_point() else poses.permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
        "face_masks": sample["face_masks"].float(),
        "noise": sample["noise"],
        "sigma": sample["sigma"].to(sigma_dtype).float(),
        "drop": sample["drop"],
    }


def encoded(sample: Batch, frozen: Frozen | None) -> tuple[Posterior, Posterior, Tensor]:
    """Latents' distributions of targets [b f 4 h w] and references [b 4 h w], and image embeddings [b 1 d] in float32.

    Args:
        sample: collated.
        frozen: encodes the pictures; None where the sample comes from the cache.
    """
    if frozen is None:
        target = Posterior(sample["target_mean"], sample["target_std"])
        reference = Posterior(sample["reference_mean"], sample["reference_std"])
        embedding = sample["image_embedding"]
    else:
        target = frozen.posterior(sample["pixels"].flatten(0, 1))
        target = Posterior(*(part.unflatten(0, sample["pixels"].shape[:2]) for part in target))
        reference = frozen.posterior(sample["reference"])
        embedding = frozen.image_embedding(sample["clip_pixels"])
    return target, reference, embedding.float()[:, None]
