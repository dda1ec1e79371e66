"""The two systems that are trained here, as the trainer sees them: what differs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from .cache import FromCache
from .checkpoints import STABLEANIMATOR_FILES, Files
from .frozen import Frozen
from .order import Order
from .samples import FromFiles, Sample, Samples, Source
from .settings import Settings
from .step import Batch

if TYPE_CHECKING:
    from .validation import Opened
    from .videos import Video


@dataclass(frozen=True)
class System:
    """What is trained.

    Attributes:
        build: the networks as one module, whose `forward` takes a batch and gives the loss.
        configs_of: file -> what its metadata says.
        files: of a checkpoint.
        from_files: the source that reads pictures; takes settings, clip folders, side of CLIP's picture.
        from_cache: the source on the cache.
        samples: the data set on a source.
        conditions_of: a collated sample to a batch; takes sample, frozen networks, number format.
        opened: what validation animates with; takes networks, settings, device.
        sampling: what else the order of samples depends on.
    """

    build: Callable[[Settings], nn.Module]
    configs_of: Callable[[Any], dict[str, dict[str, Any]]]
    files: Files
    from_files: Callable[[Settings, list[list[Video]], int], Source]
    from_cache: Callable[[FromCache], Source]
    samples: Callable[[Source, Settings, Order], Dataset[Sample]]
    conditions_of: Callable[[Batch, Frozen | None, torch.dtype], Batch]
    opened: Callable[[Any, Settings, torch.device | str], Opened]
    sampling: Callable[[Settings], dict[str, Any]]


def system_of(settings: Settings) -> System:
    """The system that the settings name."""
    return _animate_anyone() if settings.system == "animate-anyone" else _stableanimator()


def _stableanimator() -> System:
    from . import validation
    from .networks import build_networks, configs_of
    from .step import conditions_of

    return System(
        build=build_networks,
        configs_of=configs_of,
        files=STABLEANIMATOR_FILES,
        from_files=FromFiles,
        from_cache=lambda cache: cache,
        samples=Samples,
        conditions_of=conditions_of,
        opened=validation.opened,
        sampling=lambda _: {},
    )


def _animate_anyone() -> System:
    from . import anyone_validation
    from .anyone_networks import build_networks, configs_of, split
    from .anyone_samples import AnyoneFromCache, AnyoneFromFiles, AnyoneSamples
    from .anyone_step import conditions_of

    return System(
        build=build_networks,
        configs_of=configs_of,
        files=Files("Animate Anyone", split, "denoising_unet", "UNet2DConditionModel"),
        from_files=AnyoneFromFiles,
        from_cache=lambda cache: AnyoneFromCache(cache.sizes, cache.videos),
        samples=AnyoneSamples,
        conditions_of=conditions_of,
        opened=anyone_validation.opened,
        sampling=lambda settings: {"system": settings.system, "stage": settings.stage},
    )
