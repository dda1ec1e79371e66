"""Animate from plain Python: the whole way from a portrait, skeletons and an identity to frames.

The steps are those of StableAnimator's `pipelines/inference_pipeline_animation.py`; the ComfyUI nodes do the same with
the same functions, and give the same latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from . import conditioning as cond
from .decode import DecodeOptions, decode_clip
from .errors import InputError
from .guidance import GuidedDenoiser, guidance_per_frame
from .models.unet import AdapterOptions
from .models.vae import SCALING_FACTOR, decode_frames, encode_mode
from .preprocess import check_photo, check_size, clip_pixels, pose_pixels, reference_pixels
from .sigmas import StepHook, initial_noise_scale, karras_sigmas, sample_euler
from .windows import DEFAULT_OVERLAP, DEFAULT_WINDOW_SIZE, anchored_windows, repeat_noise

IDENTITY_WIDTH = 512
"""Length of an ArcFace embedding."""

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionModelWithProjection


@dataclass(frozen=True, kw_only=True)
class AnimationOptions:
    """Settings of a run; the defaults are those of the official command.

    Attributes:
        num_steps: denoising steps on Karras-spaced noise levels.
        guidance: guidance at the first and at the last frame.
        window_size, overlap: frames denoised together, see `windows.anchored_windows`.
        fps, motion_bucket_id, noise_augmentation: SVD's micro-conditioning.
        fuse_face: let the face embedding attend to the CLIP embedding; off is the ablation.
        adapter: strength and alignment of the ID adapter.
        decode: temporal chunks and tiles of the decoder.
    """

    num_steps: int = 25
    guidance: tuple[float, float] = (3.0, 3.0)
    window_size: int = DEFAULT_WINDOW_SIZE
    overlap: int = DEFAULT_OVERLAP
    fps: float = cond.DEFAULT_FPS
    motion_bucket_id: float = cond.DEFAULT_MOTION_BUCKET
    noise_augmentation: float = cond.DEFAULT_NOISE_AUGMENTATION
    fuse_face: bool = True
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def check(self) -> None:
        """Refuse settings that no clip can be made with; windows are checked with the clip.

        Raises:
            InputError: fewer than one step, or see `DecodeOptions.check`.
        """
        if self.num_steps < 1:
            raise InputError("num_steps", f"is {self.num_steps}", "use 1 or more; the official value is 25")
        self.decode.check()


@dataclass(frozen=True)
class Draws:
    """The two random draws of a run, standard normal.

    Attributes:
        image_noise: [1 3 H W], added to the reference picture.
        latent_noise: [w 4 h w], noise of one window; repeated along the clip.
    """

    image_noise: Tensor
    latent_noise: Tensor

    @classmethod
    def from_seed(cls, seed: int, height: int, width: int, window_size: int) -> Draws:
        """Image noise first, latents second, from one CPU generator, in the official order."""
        generator = torch.Generator("cpu").manual_seed(seed)
        image_noise = cond.draw_noise((1, 3, height, width), generator)
        return cls(image_noise, cond.draw_noise((window_size, 4, height // 8, width // 8), generator))

    def check(self, height: int, width: int) -> None:
        """Raises InputError if these are draws for another size."""
        expected = [1, 3, height, width], [len(self.latent_noise), 4, height // 8, width // 8]
        found = list(self.image_noise.shape), list(self.latent_noise.shape)
        if found != expected or not len(self.latent_noise):
            raise InputError(
                "draws",
                f"have the shapes {found[0]} and {found[1]}",
                f"for {width} x {height} give {expected[0]} and [frames, {str(expected[1][1:])[1:]}",
            )


@dataclass(frozen=True)
class Animation:
    """Result of a run: `frames` uint8 [f H W 3] RGB, and the `latents` [f 4 h w] they were decoded from."""

    frames: np.ndarray
    latents: Tensor


@dataclass
class Animator:
    """The networks of StableAnimator, ready to animate. Place and cast them before; nothing here moves a network."""

    unet: Module
    pose_net: Module
    face_encoder: Module
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection

    @classmethod
    def load(
        cls,
        unet: str | Path,
        pose_net: str | Path,
        face_encoder: str | Path,
        svd: str | Path,
        *,
        dtype=torch.float32,
    ) -> Animator:
        """Read the networks from their files.

        Args:
            unet: .pth or .safetensors.
            pose_net: likewise.
            face_encoder: likewise.
            svd: `svd_xt.safetensors` or SVD's diffusers folder, for the VAE and the CLIP image encoder.
            dtype: dtype of the weights.

        Raises:
            WeightsError: a file is missing, damaged, or not the model it is used for.
        """
        from .weights import load

        return cls(
            load.load_unet(unet, dtype=dtype),
            load.load_pose_net(pose_net, dtype=dtype),
            load.load_face_encoder(face_encoder, dtype=dtype),
            load.load_vae(svd, dtype=dtype),
            load.load_image_encoder(svd, dtype=dtype),
        )

    @torch.no_grad()
    def animate(
        self,
        image: np.ndarray,
        poses: np.ndarray,
        identity: np.ndarray | Tensor | None,
        *,
        height: int,
        width: int,
        seed: int = 0,
        options: AnimationOptions | None = None,
        draws: Draws | None = None,
        on_x0: StepHook | None = None,
        on_window: Callable[[], None] | None = None,
    ) -> Animation:
        """One clip, one frame for each skeleton.

        Args:
            image: the reference photo, uint8 [H W 3] RGB, any size.
            poses: skeleton pictures, uint8 [f H W 3] RGB, drawn as `pose.draw` draws them.
            identity: [512] ArcFace embedding, not normalised; None animates without a face.
            height: of the result, a multiple of 64.
            width: likewise.
            seed: of the two random draws, unless `draws` are given.
            options: see `AnimationOptions`.
            draws: the random draws themselves.
            on_x0: sees, and may replace, each step's predicted clean latents [f 4 h w].
            on_window: called before each window is denoised; may raise to cancel.

        Raises:
            InputError: a size, frame count or setting that cannot work; before any network runs.
        """
        options = options or AnimationOptions()
        check_size(height, width)
        options.check()
        check_arrays(image, poses)
        _check_identity(identity)
        skeletons = pose_pixels(poses, height, width)
        windows = anchored_windows(len(poses), options.window_size, options.overlap)
        draws = draws or Draws.from_seed(seed, height, width, min(options.window_size, len(poses)))
        draws.check(height, width)

        conditioning = self.condition(image, identity, draws.image_noise, options)
        denoiser = GuidedDenoiser(
            unet=self.unet,
            conditioning=conditioning.both_halves(),
            pose_features=self.pose_features(skeletons),
            windows=windows,
            guidance=guidance_per_frame(*options.guidance, len(poses)),
            adapter=options.adapter,
            on_window=on_window,
        )
        sigmas = karras_sigmas(options.num_steps)
        latents = repeat_noise(draws.latent_noise, len(poses)).to(conditioning.image_latents)
        latents = latents.float() * initial_noise_scale(sigmas)
        latents = sample_euler(denoiser, latents, sigmas, on_x0=on_x0)
        return Animation(self.decode(latents, options.decode), latents)

    def condition(
        self,
        image: np.ndarray,
        identity: np.ndarray | Tensor | None,
        image_noise: Tensor,
        options: AnimationOptions,
    ) -> cond.Conditioning:
        """The conditional half for one reference; `image_noise` [1 3 H W] also says the output size."""
        embedding = self.image_embedding(image)
        tokens = cond.join_tokens(embedding, self.face_tokens(identity, embedding, fuse=options.fuse_face))
        pixels = reference_pixels(image, *image_noise.shape[-2:])
        pixels = cond.augment(pixels, image_noise, options.noise_augmentation)
        return cond.Conditioning(
            tokens=tokens,
            image_latents=encode_mode(self.vae, like_weights(pixels, self.vae)),
            added_time_ids=cond.added_time_ids(
                options.fps, options.motion_bucket_id, options.noise_augmentation
            ),
        )

    def image_embedding(self, image: np.ndarray) -> Tensor:
        """CLIP's projected image embedding as one token, [1 1 d]."""
        pixels = clip_pixels(image, cast(int, self.image_encoder.config.image_size))
        return self.image_encoder(like_weights(pixels, self.image_encoder)).image_embeds[:, None]

    def face_tokens(
        self, identity: np.ndarray | Tensor | None, embedding: Tensor, *, fuse: bool
    ) -> Tensor | None:
        """Face tokens [1 4 d] of an identity [512], or None without one."""
        if identity is None:
            return None
        identity = torch.as_tensor(identity, dtype=torch.float32).reshape(1, -1)
        return self.face_encoder(
            like_weights(identity, self.face_encoder), like_weights(embedding, self.face_encoder), fuse=fuse
        )

    def pose_features(self, poses: Tensor, *, chunk: int = 16) -> Tensor:
        """PoseNet over the clip, once: [f 3 H W] -> [f C h w], kept on the CPU."""
        return torch.cat(
            [self.pose_net(like_weights(part, self.pose_net)).cpu() for part in poses.split(chunk)]
        )

    def decode(self, latents: Tensor, options: DecodeOptions) -> np.ndarray:
        """Latents [f 4 h w] -> uint8 [f H W 3]."""

        def decode_chunk(chunk: Tensor) -> Tensor:
            return decode_frames(self.vae, like_weights(chunk, self.vae), len(chunk))

        frames = decode_clip(decode_chunk, latents / SCALING_FACTOR, options)
        return (frames * 255).round().to(torch.uint8).numpy()


def check_arrays(image: np.ndarray, poses: np.ndarray) -> None:
    """Refuse a photo or skeletons that are no pictures.

    Args:
        image: the photo, uint8 [H W 3].
        poses: skeletons, uint8 [f H W 3].

    Raises:
        InputError: another shape or type, a photo of under two pixels, no skeleton.
    """
    for name, array, axes in (("image", image, 3), ("poses", poses, 4)):
        if array.dtype != np.uint8 or array.ndim != axes or array.shape[-1] != 3 or 0 in array.shape[1:]:
            form = "[height, width, 3]" if axes == 3 else "[frames, height, width, 3]"
            problem = f"has the shape {list(array.shape)} and the type {array.dtype}"
            raise InputError(name, problem, f"give uint8 RGB pictures as {form}")
    check_photo(image)
    if len(poses) < 1:
        raise InputError("poses", "there are none", "give at least one skeleton picture")


def _check_identity(identity: np.ndarray | Tensor | None) -> None:
    if identity is not None:
        numbers = torch.as_tensor(identity, dtype=torch.float32)
        if numbers.numel() != IDENTITY_WIDTH or not numbers.isfinite().all():
            problem = f"has {numbers.numel()} numbers, {int((~numbers.isfinite()).sum())} of them not finite"
            raise InputError("identity", problem, f"give ArcFace's embedding of {IDENTITY_WIDTH} numbers")


def like_weights(tensor: Tensor, module: Module) -> Tensor:
    """`tensor` on the device and in the dtype of the module's weights."""
    return tensor.to(next(module.parameters()))
