"""What the U-Net is told besides the noisy latents: tokens, image latents, time ids, for both guidance halves.

StableAnimator, `pipelines/inference_pipeline_animation.py`. The unconditional half gets zero tokens, zero image latents
and no pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT_FPS = 7
DEFAULT_MOTION_BUCKET = 127
DEFAULT_NOISE_AUGMENTATION = 0.02
NUM_FACE_TOKENS = 4


@dataclass(frozen=True)
class Conditioning:
    """The conditional half; `both_halves` makes the pair.

    Attributes:
        tokens: [1 n d], the CLIP token followed by the four face tokens.
        image_latents: [1 4 h w], posterior mode of the reference, not multiplied by the scaling factor.
        added_time_ids: [1 3], see `added_time_ids`.
    """

    tokens: Tensor
    image_latents: Tensor
    added_time_ids: Tensor

    def both_halves(self) -> Conditioning:
        """Row 0 unconditional, row 1 conditional."""
        return Conditioning(
            tokens=torch.cat([torch.zeros_like(self.tokens), self.tokens]),
            image_latents=torch.cat([torch.zeros_like(self.image_latents), self.image_latents]),
            added_time_ids=self.added_time_ids.repeat(2, 1),
        )


def added_time_ids(fps: float, motion_bucket_id: float, noise_augmentation: float) -> Tensor:
    """float32 [1 3]: fps - 1 (SVD was trained on the number of gaps), motion bucket, noise augmentation."""
    return torch.tensor([[fps - 1, motion_bucket_id, noise_augmentation]], dtype=torch.float32)


def join_tokens(image_embedding: Tensor, face_tokens: Tensor | None) -> Tensor:
    """CLIP token [1 1 d] and face tokens [1 4 d] -> [1 5 d]; no face: zeros in their place."""
    if face_tokens is None:
        face_tokens = image_embedding.new_zeros(1, NUM_FACE_TOKENS, image_embedding.shape[-1])
    return torch.cat([image_embedding, face_tokens.to(image_embedding)], dim=1)


def augment(pixels: Tensor, noise: Tensor, strength: float) -> Tensor:
    """Reference pixels [1 3 H W] in [-1, 1] with `strength` times standard normal `noise` of the same shape."""
    return pixels + strength * noise.to(pixels)


def draw_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal float32 drawn on the CPU, so that a seed means the same clip on every machine."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)
