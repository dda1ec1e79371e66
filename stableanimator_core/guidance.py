"""One denoising prediction of a whole clip: windows, both guidance halves in one batch, guidance per frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Module

from .conditioning import Conditioning
from .models.unet import AdapterOptions, denoise
from .sigmas import predicted_x0, scale_input, timestep_of
from .windows import predict_in_windows


def guidance_per_frame(minimum: float, maximum: float, num_frames: int) -> Tensor:
    """Guidance that goes linearly from the first frame to the last, float32 [f]; the official scripts use 3 to 3."""
    return torch.linspace(minimum, maximum, num_frames)


@dataclass(frozen=True)
class GuidedDenoiser:
    """Predicts x0 of a clip from noisy latents; `sample_euler` calls it once a step.

    Attributes:
        unet: from `models.unet.build_unet`.
        conditioning: both halves, see `Conditioning.both_halves`.
        pose_features: [f C h w] from PoseNet, anywhere; moved window by window. Given to the conditional half only.
        windows: frame numbers of each window.
        guidance: [f].
        adapter: strength and alignment of the ID adapter.
        on_window: called before each window; may raise to cancel.
    """

    unet: Module
    conditioning: Conditioning
    pose_features: Tensor
    windows: list[list[int]]
    guidance: Tensor
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    on_window: Callable[[], None] | None = None

    def __call__(self, latents: Tensor, sigma: Tensor, step: int) -> Tensor:
        """x0 [f 4 h w] of `latents` [f 4 h w] at `sigma`."""
        return predicted_x0(latents, self.v_prediction(latents, sigma), sigma)

    def v_prediction(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """Blended over the windows first, guided after, as the official code does: [f 4 h w]."""

        def predict(window: list[int]) -> tuple[Tensor, ...]:
            return self.predict_window(latents, sigma, window)

        uncond, cond = predict_in_windows(predict, self.windows)
        guidance = self.guidance.to(latents).view(-1, 1, 1, 1)
        return uncond + guidance * (cond - uncond)

    def predict_window(self, latents: Tensor, sigma: Tensor, window: list[int]) -> tuple[Tensor, Tensor]:
        """Unconditional and conditional v-predictions of one window, each [f 4 h w] in float32."""
        if self.on_window is not None:
            self.on_window()
        sample = self.unet_input(latents, sigma, window)
        pose = self.pose_features[window].to(sample)  # [f C h w]
        output = denoise(
            self.unet,
            sample,
            timestep_of(sigma).to(sample.device).expand(2),
            self.conditioning.tokens.to(sample),
            self.conditioning.added_time_ids.to(sample.device),
            pose_features=torch.cat([torch.zeros_like(pose), pose]),
            adapter=self.adapter,
        ).to(latents.dtype)
        return output[0], output[1]

    def unet_input(self, latents: Tensor, sigma: Tensor, window: list[int]) -> Tensor:
        """Scaled noisy latents beside the image latents, both halves: [2 f 8 h w] in the U-Net's dtype."""
        scaled = scale_input(latents[window], sigma)  # [f 4 h w]
        image = self.conditioning.image_latents.to(scaled)  # [2 4 h w]
        pair = [torch.cat([scaled, row.expand_as(scaled)], dim=1) for row in image]
        return torch.stack(pair).to(next(self.unet.parameters()).dtype)
