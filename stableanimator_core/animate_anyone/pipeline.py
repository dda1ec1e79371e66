"""Animate with Animate Anyone from plain Python: from a portrait and skeletons to frames.

The steps are those of MooreThreads/Moore-AnimateAnyone @ a914ef3, `src/pipelines/pipeline_pose2vid_long.py`.
Different from it: without guidance, frames of several windows get the mean of their predictions (there the sum), and
the reference's features keep their precision unless float16 rounding is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ..conditioning import draw_noise
from ..decode import DecodeOptions, decode_clip
from ..errors import InputError
from ..models.vae import SCALING_FACTOR, decode_pictures, encode_mode
from ..pipeline import Animation, check_arrays, like_weights
from ..preprocess import check_pose_aspect, check_size, to_uint8
from ..sigmas import StepHook
from ..windows import looped_windows, running_windows
from .attention import Reference
from .ddim import DEFAULT_STEPS, sample_ddim, trailing_timesteps
from .denoising_unet import check_window
from .guidance import DEFAULT_GUIDANCE, GuidedDenoiser
from .preprocess import SIZE_MULTIPLE, clip_pixels, pose_pixels, reference_pixels
from .reference_net import write_reference

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionModelWithProjection

DEFAULT_WINDOW_SIZE = 24
DEFAULT_OVERLAP = 4


@dataclass(frozen=True, kw_only=True)
class AnyoneOptions:
    """Settings of a run; the defaults are those of the published web demo and its long pipeline.

    Attributes:
        num_steps: denoising steps.
        guidance: up to 1 turns it off and halves the work.
        window_size: frames denoised together, at most the position tables' entries (32 in the published file).
        overlap: frames shared by neighbouring windows.
        loop: "closed" wraps the last window to the first frames (official, the clip closes to a loop), "open" moves it
            back so that it ends with the last frame.
        round_reference: pass the reference's features through float16 as the official code does.
        decode: frames decoded at a time, and tiles; chunks change nothing but memory, frames are decoded singly.
    """

    num_steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    window_size: int = DEFAULT_WINDOW_SIZE
    overlap: int = DEFAULT_OVERLAP
    loop: Literal["closed", "open"] = "closed"
    round_reference: bool = False
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def windows(self, num_frames: int) -> list[list[int]]:
        """Frame numbers of each window.

        Raises:
            InputError: see `windows.check_windows`.
        """
        windows_of = looped_windows if self.loop == "closed" else running_windows
        return windows_of(num_frames, self.window_size, self.overlap)


@dataclass
class AnimateAnyone:
    """The networks of Animate Anyone, ready to animate. Place and cast them before; nothing here moves a network."""

    denoising_unet: Module
    reference_net: Module
    pose_guider: Module
    vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection

    @torch.no_grad()
    def animate(
        self,
        image: np.ndarray,
        poses: np.ndarray,
        *,
        height: int,
        width: int,
        seed: int = 0,
        options: AnyoneOptions | None = None,
        noise: Tensor | None = None,
        on_x0: StepHook | None = None,
        on_window: Callable[[], None] | None = None,
    ) -> Animation:
        """One clip, one frame for each skeleton.

        Args:
            image: the reference photo, uint8 [H W 3] RGB, any size; resized to the output, so crop it to its aspect.
            poses: skeleton pictures, uint8 [f H W 3] RGB.
            height: of the result, a multiple of 8.
            width: likewise.
            seed: of the noise, unless that is given.
            options: see `AnyoneOptions`.
            noise: standard normal [f 4 H/8 W/8], the latents to start from.
            on_x0: sees, and may replace, each step's predicted clean latents [f 4 h w]; HJB is such a hook.
            on_window: called before each window is denoised; may raise to cancel.

        Raises:
            InputError: a size, frame count or setting that cannot work; before any network runs.
        """
        options = options or AnyoneOptions()
        check_size(height, width, SIZE_MULTIPLE)
        check_arrays(image, poses)
        check_pose_aspect(poses, height, width)
        options.decode.check()
        trailing_timesteps(options.num_steps)
        windows = options.windows(len(poses))
        check_window(self.denoising_unet, len(windows[0]))
        noise = draw(seed, len(poses), height, width) if noise is None else noise
        _check_noise(noise, len(poses), height, width)

        token = self.image_token(image)
        denoiser = GuidedDenoiser(
            unet=self.denoising_unet,
            token=token,
            reference=self.reference(image, token, height, width, options),
            pose_features=self.pose_features(pose_pixels(poses, height, width)),
            windows=windows,
            guidance=options.guidance,
            on_window=on_window,
        )
        latents = noise.to(token.device).float()
        latents = sample_ddim(denoiser, latents, options.num_steps, on_x0=on_x0)
        return Animation(self.decode(latents, options.decode), latents)

    def image_token(self, image: np.ndarray) -> Tensor:
        """CLIP's projected image embedding as the one token, [1 1 d]."""
        pixels = clip_pixels(image, cast(int, self.image_encoder.config.image_size))
        return self.image_encoder(like_weights(pixels, self.image_encoder)).image_embeds[:, None]

    def reference(
        self, image: np.ndarray, token: Tensor, height: int, width: int, options: AnyoneOptions
    ) -> Reference:
        """The photo as the denoising network looks at it; `token` [1 1 d]."""
        latents = self.reference_latents(image, height, width)
        net = self.reference_net
        features = write_reference(net, like_weights(latents, net), like_weights(token, net))
        return Reference(features, round_to_half=options.round_reference)

    def reference_latents(self, image: np.ndarray, height: int, width: int) -> Tensor:
        """The photo's latents [1 4 h w], posterior mode times the scaling factor."""
        pixels = reference_pixels(image, height, width)
        return encode_mode(self.vae, like_weights(pixels, self.vae)) * SCALING_FACTOR

    def pose_features(self, poses: Tensor, *, chunk: int = 16) -> Tensor:
        """The pose guider over the clip, once: [f 3 H W] -> [f C h w], kept on the CPU."""
        guider = self.pose_guider
        return torch.cat([guider(like_weights(part, guider)).cpu() for part in poses.split(chunk)])

    def decode(self, latents: Tensor, options: DecodeOptions) -> np.ndarray:
        """Latents [f 4 h w] -> uint8 [f H W 3]."""

        def decode_chunk(chunk: Tensor) -> Tensor:
            return decode_pictures(self.vae, like_weights(chunk, self.vae))

        return to_uint8(decode_clip(decode_chunk, latents / SCALING_FACTOR, options))


def draw(seed: int, num_frames: int, height: int, width: int) -> Tensor:
    """The noise of a run, float32 [f 4 h w]: drawn on the CPU as [4 f h w], the official order."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return draw_noise((1, 4, num_frames, height // 8, width // 8), generator)[0].transpose(0, 1)


def _check_noise(noise: Tensor, num_frames: int, height: int, width: int) -> None:
    expected = [num_frames, 4, height // 8, width // 8]
    if list(noise.shape) != expected:
        raise InputError("noise", f"has the shape {list(noise.shape)}", f"give {expected}")
