"""What a run trains on, opened: clip folders checked and reported, the cache filled, or the frozen networks loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .cache import fill_cache, load_cache
from .frozen import Frozen
from .logs import LOGGER
from .samples import Source
from .settings import Settings
from .systems import System
from .videos import Report, Video, find_videos

if TYPE_CHECKING:
    from accelerate import Accelerator

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""accelerate's word for mixed precision -> the type of what does not learn."""
REPORT = "data_report.json"


@dataclass(frozen=True)
class OpenData:
    """Clips to train on.

    Attributes:
        sizes: clip folders per bucket.
        source: their frames.
        frozen: the networks that every step needs; None with a cache.
    """

    sizes: tuple[int, ...]
    source: Source
    frozen: Frozen | None


def open_data(settings: Settings, accelerator: Accelerator, system: System) -> OpenData:
    """Check the data set, write `data_report.json`, and open its source. All processes fill the cache together.

    Raises:
        InputError: a bucket without usable clips, or a picture that cannot be read.
        WeightsError: a frozen network's file is damaged or another model.
    """
    buckets = _checked(settings, accelerator)
    sizes = tuple(map(len, buckets))
    if settings.data.cache is None:
        dtype = DTYPES.get(accelerator.mixed_precision, torch.float32)
        frozen = Frozen.load(settings.networks, accelerator.device, dtype)
        return OpenData(sizes, system.from_files(settings, buckets, frozen.picture_size), frozen)
    share = accelerator.process_index, accelerator.num_processes
    fill_cache(settings, buckets, device=accelerator.device, share=share, progress=_tell)
    accelerator.wait_for_everyone()
    return OpenData(sizes, system.from_cache(load_cache(settings, buckets)), None)


def _checked(settings: Settings, accelerator: Accelerator) -> list[list[Video]]:
    report = Report()
    try:
        return find_videos(settings.data, report)
    finally:
        if accelerator.is_main_process:
            report.write(settings.output / REPORT)
            for line in report.lines():
                LOGGER.info(line)


def _tell(done: int, count: int) -> None:
    if done == count or done % max(1, count // 20) == 0:
        LOGGER.info("cached %d of %d clip folders", done, count)
