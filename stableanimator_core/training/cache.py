"""What the frozen networks make of every frame, computed once and kept in files, so that steps need none of them.

One safetensors file per clip folder, named after everything it depends on: names, sizes and times of the pictures, the
weight files of the networks, the training size. A changed picture or network makes a new file.
Difference from training without a cache: the reference's augmentation noise is one of a few fixed draws per frame
(or none), and CLIP and VAE work in float32. Latents are kept as posteriors (float16), so they are still sampled.
Axes: n frames of a clip folder, k noise variants, f frames of a clip, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from ..errors import InputError
from ..preprocess import clip_pixels
from ..weights.files import read_weights, save_weights
from ..weights.svd import read_image_encoder
from .frames import Clip
from .frozen import Frozen, Posterior, paths, vae_file
from .identities import Identities, open_identities
from .loss import masks_on_latents
from .order import seeded
from .pictures import read_mask, read_rgb, signed
from .samples import Sample, masks
from .settings import Settings
from .videos import Video

CHUNK = 32  # frames that go through the frozen networks at a time
_FORMAT = 1  # raised when the contents change

Progress = Callable[[int, int], None]
"""(clip folders done, of how many)."""


@dataclass
class FromCache:
    """The cache in memory, as the samples' source; `videos[bucket][video]` are the tensors of `encode`."""

    sizes: list[tuple[int, int]]
    videos: list[list[dict[str, Tensor]]]

    def length(self, bucket: int, video: int) -> int:
        """See `samples.Source`."""
        return len(self.videos[bucket][video]["poses"])

    def size(self, bucket: int) -> tuple[int, int]:
        """See `samples.Source`."""
        return self.sizes[bucket]

    def parts(self, bucket: int, video: int, clip: Clip, generator: torch.Generator) -> Sample:
        """See `samples.Source`."""
        tensors, frames = self.videos[bucket][video], list(clip.frames)
        variants = tensors["reference_mean"].shape[1]
        variant = int(torch.randint(variants, (), generator=generator))
        return {
            "target_mean": tensors["mean"][frames],
            "target_std": tensors["std"][frames],
            "reference_mean": tensors["reference_mean"][clip.reference, variant],
            "reference_std": tensors["reference_std"][clip.reference, variant],
            "image_embedding": tensors["image_embedding"][clip.reference],
            "identity": tensors["identity"][clip.reference],
            "poses": tensors["poses"][frames],
            "face_masks": tensors["face_masks"][frames],
        }


def cache_files(settings: Settings, buckets: list[list[Video]]) -> list[list[Path]]:
    """Where the tensors of every clip folder are or will be."""
    networks = _networks_key(settings)
    folder = settings.data.cache or Path()
    return [
        [
            folder / f"{video.folder.name}-{_key(video, networks, bucket.height, bucket.width)}.safetensors"
            for video in videos
        ]
        for bucket, videos in zip(settings.data.buckets, buckets, strict=True)
    ]


def fill_cache(
    settings: Settings,
    buckets: list[list[Video]],
    *,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> int:
    """Compute what is missing in the cache.

    Args:
        settings: of the run.
        buckets: the clip folders.
        device: for the frozen networks.
        share: (process, processes): which part of the missing ones this process computes.
        progress: called after each clip folder.

    Returns:
        How many clip folders were computed here.

    Raises:
        InputError: a picture cannot be read.
        WeightsError: a network's file is missing or damaged.
    """
    missing = list(_missing(settings, buckets))[share[0] :: share[1]]
    if not missing:
        return 0
    frozen = Frozen.load(settings.networks, device, torch.float32)
    identities = open_identities(settings.identity, device)
    with ThreadPoolExecutor(max_workers=max(1, settings.data.workers)) as pool:
        for done, (path, video, size) in enumerate(missing, start=1):
            save_weights(path, encode(video, size, frozen, identities, settings, pool))
            if progress is not None:
                progress(done, len(missing))
    return len(missing)


def load_cache(settings: Settings, buckets: list[list[Video]]) -> FromCache:
    """The whole cache, in memory.

    Raises:
        InputError: it is not complete; see `fill_cache`.
    """
    sizes = [(bucket.height, bucket.width) for bucket in settings.data.buckets]
    files = cache_files(settings, buckets)
    return FromCache(sizes, [[dict(read_weights(path).state) for path in row] for row in files])


def encode(
    video: Video,
    size: tuple[int, int],
    frozen: Frozen,
    identities: Identities,
    settings: Settings,
    pool: ThreadPoolExecutor,
) -> dict[str, Tensor]:
    """All frames of a clip folder through the frozen networks, `CHUNK` at a time.

    Returns:
        mean, std [n 4 h w] and reference_mean, reference_std [n k 4 h w] in float16, image_embedding [n d],
        identity [n e], face_masks [n 1 h w] in float16, poses uint8 [n H W 3].

    Raises:
        InputError: a picture cannot be read.
    """
    chunks: list[dict[str, Tensor]] = []
    for start in range(0, len(video), CHUNK):
        frames = range(start, min(start + CHUNK, len(video)))
        chunks.append(_encode_chunk(video, frames, size, frozen, identities, settings, pool))
    return {name: torch.cat([chunk[name] for chunk in chunks]).contiguous() for name in chunks[0]}


def _encode_chunk(
    video: Video,
    frames: range,
    size: tuple[int, int],
    frozen: Frozen,
    identities: Identities,
    settings: Settings,
    pool: ThreadPoolExecutor,
) -> dict[str, Tensor]:
    pictures = list(pool.map(lambda frame: read_rgb(video.images[frame], size), frames))
    poses = list(pool.map(lambda frame: torch.from_numpy(read_rgb(video.pose(frame), size)), frames))
    faces = list(pool.map(lambda frame: read_mask(video.face(frame), size), frames))
    for_clip = list(pool.map(lambda picture: clip_pixels(picture, frozen.picture_size), pictures))
    pixels = signed(pictures)
    posterior = frozen.posterior(pixels)
    noise_of = seeded(settings.training.seed, 3, crc32(video.folder.name.encode()), frames.start)
    variants = list(_noisy_references(pixels, noise_of, frozen, settings)) or [posterior]
    latent_size = size[0] // 8, size[1] // 8
    return {
        "mean": posterior.mean.half().cpu(),
        "std": posterior.std.half().cpu(),
        "reference_mean": torch.stack([variant.mean for variant in variants], dim=1).half().cpu(),
        "reference_std": torch.stack([variant.std for variant in variants], dim=1).half().cpu(),
        "image_embedding": frozen.image_embedding(torch.cat(for_clip)).cpu(),
        "identity": identities.embed(pictures, faces),
        "face_masks": masks_on_latents(masks(faces)[None], *latent_size)[0].half(),
        "poses": torch.stack(poses),
    }


def _noisy_references(
    pixels: Tensor, generator: torch.Generator, frozen: Frozen, settings: Settings
) -> Iterator[Posterior]:
    """Posteriors of the pictures with augmentation noise, one for each variant."""
    for _ in range(settings.data.reference_noise_variants):
        noise = torch.randn(pixels.shape, generator=generator)
        yield frozen.posterior(pixels + settings.training.noise_augmentation * noise)


def _missing(settings: Settings, buckets: list[list[Video]]) -> Iterator[tuple[Path, Video, tuple[int, int]]]:
    files = cache_files(settings, buckets)
    for bucket, videos, row in zip(settings.data.buckets, buckets, files, strict=True):
        for video, path in zip(videos, row, strict=True):
            if not path.is_file():
                yield path, video, (bucket.height, bucket.width)


def _key(video: Video, networks: str, height: int, width: int) -> str:
    """Digest of everything the tensors depend on."""
    digest = hashlib.sha256(f"{_FORMAT} {networks} {height}x{width} {video.folder.resolve()}".encode())
    for frame, image in enumerate(video.images):
        for path in (image, video.pose(frame), video.face(frame)):
            status = _status(path)
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


def _status(path: Path):
    try:
        return path.stat()
    except OSError as error:
        raise InputError(str(path), "disappeared while training was set up", "put it back") from error


def _networks_key(settings: Settings) -> str:
    image_encoder = paths(settings.networks)[1]
    files = [vae_file(settings.networks), read_image_encoder(image_encoder).source]
    files += [path for path in (settings.identity.detector, settings.identity.recogniser) if path is not None]
    draws = (settings.training.seed, settings.training.noise_augmentation)
    options = (settings.identity.provider, settings.data.reference_noise_variants, *draws)
    return " ".join([*map(_sha256, files), *map(str, options)])


@lru_cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _blocks(file)
        )


def _blocks(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
