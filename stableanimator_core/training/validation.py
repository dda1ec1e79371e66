"""Held-out clips, animated with the weights of the moment: a picture and a short film per clip.

Official: one clip, 25 steps, guidance 3, one window (`train.py`, Francis-Rings/StableAnimator @ 020e7f2).
The reference is the last frame used; the film shows the true frames, the poses and the result side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..pipeline import AnimationOptions, Animator
from .average import Average
from .frozen import Frozen
from .identities import open_identities
from .logs import LOGGER, Metrics
from .pictures import read_mask, read_rgb
from .settings import Settings
from .videos import Report, Video, read_video

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""True frames, poses and result, each uint8 [f H W 3]."""
Opened = Callable[[Video], Rows]
_COLUMNS = 8
_MILLISECONDS = 125


def validate(
    networks: Any,
    average: Average | None,
    settings: Settings,
    step: int,
    metrics: Metrics | None,
    device: torch.device | str,
    open_networks: Callable[[Any, Settings, torch.device | str], Opened] | None = None,
) -> list[Path]:
    """Animate every validation clip; the files written, in `output/validation`.

    Args:
        networks: unwrapped; their mode is restored.
        average: if given, its weights are used.
        settings: of the run.
        step: for the names.
        metrics: gets the pictures, and the error `psnr_CLIP` against the true frames.
        device: of the frozen networks, loaded for this and let go afterwards.
        open_networks: makes of the networks what animates a clip; StableAnimator's `opened` if left out.

    Raises:
        InputError: a clip folder cannot be used.
    """
    animated = (open_networks or opened)(networks, settings, device)
    written = []
    networks.eval()
    with average.applied() if average is not None else nullcontext():
        for name in settings.validation.clips:
            rows = animated(_clip(settings, name))
            written += _write(rows, settings.output / "validation" / f"{name.replace('/', '-')}-{step:06}")
            if metrics is not None:
                metrics.picture(step, f"validation/{name}", _grid(rows))
                metrics.add(step, {f"psnr_{name}": _psnr(rows[0], rows[2])})
            LOGGER.info("step %d  %s: psnr %.2f dB", step, name, _psnr(rows[0], rows[2]))
    networks.train()
    return written


def _clip(settings: Settings, name: str) -> Video:
    report = Report()
    video = read_video(settings.data.root / name, report)
    if video is None or len(video) < 2:
        reason = next(iter(report.skipped.values()), "fewer than two frames")
        raise InputError(f"validation clip {name}", reason, "name a clip folder with complete frames")
    return video


def opened(networks: Any, settings: Settings, device: torch.device | str) -> Opened:
    """Animates clips with StableAnimator.

    Args:
        networks: `TrainedNetworks`.
        settings: of the run.
        device: of the frozen networks.

    Raises:
        WeightsError: a frozen network's file is missing, damaged or another model.
    """
    frozen: Any = Frozen.load(settings.networks, device, torch.float32)
    animator = Animator(
        networks.unet, networks.pose_net, networks.face_encoder, frozen.vae, frozen.image_encoder
    )
    return lambda video: _animated(animator, video, settings)


def pictures_of(video: Video, settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reference [H W 3] and its face mask [H W], true frames and poses [f H W 3]; masks float, all else uint8."""
    v, first = settings.validation, settings.data.buckets[0]
    size = (v.height, v.width) if v.height else (first.height, first.width)
    frames, reference = range(min(v.num_frames, len(video) - 1)), len(video) - 1
    photo, mask = read_rgb(video.images[reference], size), read_mask(video.face(reference), size)
    truth = np.stack([read_rgb(video.images[frame], size) for frame in frames])
    poses = np.stack([read_rgb(video.pose(frame), size) for frame in frames])
    return photo, mask, truth, poses


def _animated(animator: Animator, video: Video, settings: Settings) -> Rows:
    v = settings.validation
    photo, mask, truth, poses = pictures_of(video, settings)
    identity = open_identities(settings.identity).embed([photo], [mask])[0]
    count = len(poses)
    options = AnimationOptions(
        num_steps=v.num_steps,
        guidance=(v.guidance, v.guidance),
        window_size=count,
        overlap=0 if count == 1 else min(4, count - 1),
        fps=settings.training.fps,
        motion_bucket_id=settings.training.motion_bucket_id,
        noise_augmentation=settings.training.noise_augmentation,
    )
    height, width = photo.shape[:2]
    result = animator.animate(photo, poses, identity, height=height, width=width, options=options)
    return truth, poses, result.frames


def _write(rows: Rows, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    film = [Image.fromarray(frame) for frame in np.concatenate(rows, axis=2)]
    picture, moving = path.with_suffix(".png"), path.with_suffix(".gif")
    Image.fromarray(_grid(rows)).save(picture)
    film[0].save(moving, save_all=True, append_images=film[1:], duration=_MILLISECONDS, loop=0)
    return [picture, moving]


def _grid(rows: Rows) -> np.ndarray:
    """At most eight frames of each row, one below the other."""
    count = len(rows[0])
    chosen = np.linspace(0, count - 1, min(_COLUMNS, count)).round().astype(int)
    return np.concatenate([np.concatenate(list(row[chosen]), axis=1) for row in rows])


def _psnr(truth: np.ndarray, result: np.ndarray) -> float:
    error = np.mean((truth.astype(np.float32) - result.astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-10)))
