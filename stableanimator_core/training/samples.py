"""One training sample: a clip, its reference, and every random number of its step.

All draws come from generators that depend on seed, pass and place alone (`order.seeded`), so a resumed run, or one
on another number of processes, sees the same samples.
Differences from the official code: noise levels are spread over the clips of all processes together, and every
clip has a dropout draw of its own (there all processes drop alike).
Axes: f frames, H W pixels, h w latent pixels, d token width, e identity.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..preprocess import clip_pixels
from .frames import Clip, draw_clip
from .identities import Identities, open_identities
from .noise_levels import lognormal_sigma_of, sigma_of, stratified
from .order import Order, Request, seeded
from .pictures import read_mask, read_rgb, signed
from .settings import Noise, Settings
from .videos import Video

_CLIPS, _LEVELS = 1, 2  # what a generator is for; 0 is the order

Sample = dict[str, Tensor]
"""Names as in `step.conditions_of`."""


class Source(Protocol):
    """Where the frames of a clip come from: files or the cache."""

    def length(self, bucket: int, video: int) -> int:
        """Frames of a clip folder."""
        ...

    def size(self, bucket: int) -> tuple[int, int]:
        """Training size: height, width in pixels."""
        ...

    def parts(self, bucket: int, video: int, clip: Clip, generator: torch.Generator) -> Sample:
        """Everything about a clip that is not noise."""
        ...


class FromFiles:
    """Pictures read when they are needed; frozen networks see them in the step."""

    def __init__(self, settings: Settings, buckets: list[list[Video]], clip_size: int):
        self.settings, self.buckets, self.clip_size = settings, buckets, clip_size
        self._identities: Identities | None = None

    def length(self, bucket: int, video: int) -> int:
        """See `Source`."""
        return len(self.buckets[bucket][video])

    def size(self, bucket: int) -> tuple[int, int]:
        """See `Source`."""
        chosen = self.settings.data.buckets[bucket]
        return chosen.height, chosen.width

    def parts(self, bucket: int, video: int, clip: Clip, generator: torch.Generator) -> Sample:
        """See `Source`."""
        folder, size = self.buckets[bucket][video], self.size(bucket)
        path = folder.images[clip.reference]
        reference = read_rgb(path, size)
        pixels = signed([reference])[0]
        noise = torch.randn(pixels.shape, generator=generator)
        strength = self.settings.training.noise_augmentation
        return {
            "pixels": signed([read_rgb(folder.images[frame], size) for frame in clip.frames]),
            "reference": pixels + strength * noise,
            "clip_pixels": clip_pixels(reference, self.clip_size)[0],
            "identity": self._identity(folder, clip.reference, size),
            "poses": signed([read_rgb(folder.pose(frame), size) for frame in clip.frames]),
            "face_masks": masks([read_mask(folder.face(frame), size) for frame in clip.frames]),
        }

    def _identity(self, folder: Video, frame: int, size: tuple[int, int]) -> Tensor:
        if self._identities is None:  # opened in the process that reads: sessions do not survive a fork
            self._identities = open_identities(self.settings.identity)
        return identities_of(self._identities, folder, [frame], size)[0]


def identities_of(identities: Identities, video: Video, frames: list[int], size: tuple[int, int]) -> Tensor:
    """Identities [n e] of frames at training size, as the official code looks at them."""
    pictures = [read_rgb(video.images[frame], size) for frame in frames]
    return identities.embed(pictures, [read_mask(video.face(frame), size) for frame in frames])


def masks(arrays: list) -> Tensor:
    """Face masks [H W] to [f 1 H W]."""
    return torch.stack([torch.from_numpy(array) for array in arrays])[:, None]


class Samples(Dataset):
    """Requests to samples.

    Args:
        source: the frames.
        settings: of the run.
        order: how many samples make a pass.
    """

    def __init__(self, source: Source, settings: Settings, order: Order):
        self.source, self.settings, self.order = source, settings, order

    def __getitem__(self, request: Request) -> Sample:
        data, seed = self.settings.data, self.settings.training.seed
        generator = seeded(seed, _CLIPS, request.forward, request.place)
        length = self.source.length(request.bucket, request.video)
        clip = draw_clip(length, generator, data.num_frames, data.stride)
        height, width = (side // 8 for side in self.source.size(request.bucket))
        latents = (data.num_frames, 4, height, width)
        level, drop = self._of_pass(request)
        return {
            **self.source.parts(request.bucket, request.video, clip, generator),
            "posterior_noise": torch.randn(latents, generator=generator),
            "reference_posterior_noise": torch.randn(latents[1:], generator=generator),
            "noise": torch.randn(latents, generator=generator),
            "sigma": level,
            "drop": drop,
        }

    def _of_pass(self, request: Request) -> tuple[Tensor, Tensor]:
        """Noise level and dropout draw of one sample; the levels of a pass are drawn together."""
        count = self.order.batch * self.order.processes
        generator = seeded(self.settings.training.seed, _LEVELS, request.forward)
        levels, drops = torch.rand(2, count, generator=generator)
        return levels_of(levels, self.settings.noise)[request.place], drops[request.place]


def levels_of(draws: Tensor, noise: Noise) -> Tensor:
    """Noise levels of uniform draws [b], one from each b-th of the distribution."""
    uniform = stratified(draws)
    if noise.distribution == "lognormal":
        return lognormal_sigma_of(uniform, noise.mean, noise.std)
    return sigma_of(uniform)
