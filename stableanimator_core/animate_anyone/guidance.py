"""One denoising prediction of a whole clip: windows, both guidance halves in one batch, guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..windows import equal_weights, predict_in_windows
from .attention import Reference
from .denoising_unet import denoise

DEFAULT_GUIDANCE = 3.5


@dataclass(frozen=True)
class GuidedDenoiser:
    """Predicts v of a clip from noisy latents; `sample_ddim` calls it once a step.

    Attributes:
        unet: from `build_denoising_unet`.
        token: [1 n d], the photo's CLIP token; the unconditional half gets zeros.
        reference: the photo's features, seen by the conditional half only.
        pose_features: [f c h w] from the pose guider, anywhere; moved window by window. Both halves get them.
        windows: frame numbers of each window.
        guidance: up to 1 there is no unconditional half.
        on_window: called before each window; may raise to cancel.
    """

    unet: Any
    token: Tensor
    reference: Reference
    pose_features: Tensor
    windows: list[list[int]]
    guidance: float = DEFAULT_GUIDANCE
    on_window: Callable[[], None] | None = None

    def __call__(self, latents: Tensor, timestep: int, step: int) -> Tensor:
        """v [f 4 h w] of `latents` [f 4 h w]: averaged over the windows first, guided after."""

        def predict(window: list[int]) -> tuple[Tensor, ...]:
            return tuple(self.predict_window(latents, timestep, window))

        *uncond, cond = predict_in_windows(predict, self.windows, equal_weights)
        return uncond[0] + self.guidance * (cond - uncond[0]) if uncond else cond

    def predict_window(self, latents: Tensor, timestep: int, window: list[int]) -> Tensor:
        """v of one window: unconditional and conditional [2 f 4 h w], or conditional [1 f 4 h w]; float32."""
        if self.on_window is not None:
            self.on_window()
        like = next(self.unet.parameters())
        sample, token = latents[window][None].to(like), self.token.to(like)
        rows = (True,)
        if self.guidance > 1:
            sample = sample.expand(2, -1, -1, -1, -1)
            token, rows = torch.cat([torch.zeros_like(token), token]), (False, True)
        return denoise(
            self.unet,
            sample,
            torch.tensor(timestep, device=like.device),
            token,
            pose_features=self.pose_features[window].to(like),
            reference=self.reference,
            reference_rows=rows,
        ).to(latents.dtype)
