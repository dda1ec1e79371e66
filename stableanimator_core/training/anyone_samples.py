"""One training sample of Animate Anyone: a frame or clip, its reference, and every random number of its step.

Code: `src/dataset/dance_image.py`, `dance_video.py`, MooreThreads/Moore-AnimateAnyone @ a914ef3.
Draws as in `samples`: resumed runs see the same. Differences from the official code: a target that is too near to
its reference is still another frame, times are spread over the samples of a step, pictures are resized bicubically,
and CLIP sees the picture squashed to a square as in sampling (there cut to one).
Axes: f frames, H W pixels, h w latent pixels, d token width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..animate_anyone.ddim import TRAIN_STEPS
from ..preprocess import clip_pixels
from .cache import FromCache
from .frames import Clip, clip_frames, clip_length
from .noise_levels import stratified
from .order import Request, seeded
from .pictures import Cut, read_rgb, signed
from .samples import FromFiles, Sample, Samples

_CLIPS, _LEVELS = 1, 2  # what a generator is for, as in `samples`
_TRIES = 10


class AnyoneFromFiles(FromFiles):
    """Pictures read when they are needed, and cut at random: frames, skeletons and reference alike."""

    def parts(self, bucket: int, video: int, clip: Clip, generator: torch.Generator) -> Sample:
        """See `samples.Source`."""
        folder, size, anyone = self.buckets[bucket][video], self.size(bucket), self.settings.anyone
        cut = draw_cut(generator, anyone.crop_scale, anyone.crop_ratio)
        reference = folder.images[clip.reference]
        poses = [torch.from_numpy(read_rgb(folder.pose(frame), size, cut)) for frame in clip.frames]
        return {
            "pixels": signed([read_rgb(folder.images[frame], size, cut) for frame in clip.frames]),
            "reference": signed([read_rgb(reference, size, cut)])[0],
            "clip_pixels": clip_pixels(read_rgb(reference, size), self.clip_size)[0],
            "poses": torch.stack(poses),
        }


class AnyoneFromCache(FromCache):
    """The cache of either system: the reference is the frame without augmentation noise."""

    def parts(self, bucket: int, video: int, clip: Clip, generator: torch.Generator) -> Sample:
        """See `samples.Source`."""
        tensors, frames = self.videos[bucket][video], list(clip.frames)
        return {
            "target_mean": tensors["mean"][frames],
            "target_std": tensors["std"][frames],
            "reference_mean": tensors["mean"][clip.reference],
            "reference_std": tensors["std"][clip.reference],
            "image_embedding": tensors["image_embedding"][clip.reference],
            "poses": tensors["poses"][frames],
        }


class AnyoneSamples(Samples):
    """Requests to samples of either stage."""

    def __getitem__(self, request: Request) -> Sample:
        data, seed = self.settings.data, self.settings.training.seed
        generator = seeded(seed, _CLIPS, request.forward, request.place)
        length = self.source.length(request.bucket, request.video)
        if self.settings.stage == 1:
            clip = draw_pictures(length, generator, data.num_frames, self.settings.anyone.min_distance)
        else:
            clip = draw_video(length, generator, data.num_frames, data.stride)
        height, width = (side // 8 for side in self.source.size(request.bucket))
        latents = (data.num_frames, 4, height, width)
        timestep, dropped = self._of_pass(request)
        noise = {
            "posterior_noise": torch.randn(latents, generator=generator),
            "reference_posterior_noise": torch.randn(latents[1:], generator=generator),
            "noise": torch.randn(latents, generator=generator),
            "noise_offset": torch.randn(4, generator=generator),
        }
        parts = self.source.parts(request.bucket, request.video, clip, generator)
        return {**parts, **noise, "timestep": timestep, "dropped": dropped}

    def _of_pass(self, request: Request) -> tuple[Tensor, Tensor]:
        """Time of one sample, and whether its batch goes without conditions; times of a pass are drawn together."""
        batch = self.order.batch
        generator = seeded(self.settings.training.seed, _LEVELS, request.forward)
        levels, drops = torch.rand(2, batch * self.order.processes, generator=generator)
        dropped = drops[request.place // batch * batch] < self.settings.training.dropout
        return times_of(levels)[request.place], dropped


def times_of(draws: Tensor) -> Tensor:
    """Times 0..999 of uniform draws [b], one from each b-th of them; every time is equally likely."""
    return (stratified(draws) * TRAIN_STEPS).long().clamp(max=TRAIN_STEPS - 1)


def draw_pictures(
    video_length: int, generator: torch.Generator, num_frames: int = 1, min_distance: int = 30
) -> Clip:
    """A reference drawn uniformly, and target frames at least `min_distance` away from it, any order.

    Where no frame is that far, all others may be drawn; a video of one frame is its own reference.
    """
    reference = int(torch.randint(video_length, (), generator=generator))
    others = [frame for frame in range(video_length) if frame != reference] or [reference]
    far = [frame for frame in others if abs(frame - reference) >= min_distance] or others
    chosen = torch.randperm(len(far), generator=generator)[:num_frames].tolist()
    chosen += [chosen[index % len(chosen)] for index in range(num_frames - len(chosen))]
    return Clip(tuple(far[index] for index in chosen), reference)


def draw_video(video_length: int, generator: torch.Generator, num_frames: int, stride: int) -> Clip:
    """A clip from a uniformly drawn start as `frames.clip_frames`, and any frame of the video as its reference."""
    starts = video_length - clip_length(video_length, num_frames, stride) + 1
    frames = clip_frames(
        video_length, int(torch.randint(starts, (), generator=generator)), num_frames, stride
    )
    return Clip(frames, int(torch.randint(video_length, (), generator=generator)))


def draw_cut(generator: torch.Generator, least_area: float, least_ratio: float) -> Cut:
    """Left, top, right, bottom as shares of the picture: a random part of the area, a random part of the aspect.

    As torchvision's RandomResizedCrop: area uniform, ratio uniform in its logarithm up to 1, ten tries, else the
    largest of an allowed ratio in the middle; but the ratio is relative to the picture's own.
    """
    for _ in range(_TRIES):
        area, ratio = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        area = least_area + area * (1 - least_area)
        ratio = math.exp(math.log(least_ratio) * ratio)
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if height <= 1:
            x, y = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            left, top = x * (1 - width), y * (1 - height)
            return left, top, left + width, top + height
    return 0.0, 0.0, 1.0, 1.0
