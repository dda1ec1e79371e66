"""Which clip every process trains at every step, as a function of the seed: nothing to save, nothing to restore.

A pass is one forward pass of all processes together. Clips of a pass share a bucket, so a size. In an epoch each
bucket is shuffled and cut into passes, and the passes of all buckets are shuffled together, as in the official
code (there each process shuffles by itself, so sizes may differ within a step).
Axes: a pass has `batch` clips of each of `processes`, numbered process by process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch


class Request(NamedTuple):
    """One sample to be made.

    Attributes:
        bucket: its number.
        video: number of the clip folder in the bucket.
        forward: number of the pass since the start of training.
        place: the sample's number in the pass, over all processes.
    """

    bucket: int
    video: int
    forward: int
    place: int


def seeded(seed: int, *numbers: int) -> torch.Generator:
    """A CPU generator that depends on all the numbers and on nothing else."""
    state = np.random.SeedSequence((seed, *numbers)).generate_state(2)
    return torch.Generator("cpu").manual_seed(int(state[0]) << 31 ^ int(state[1]))


@dataclass(frozen=True)
class Order:
    """The order of all samples.

    Attributes:
        sizes: clip folders per bucket, none of them 0.
        batch: clips per process and pass.
        processes: how many.
        seed: of the shuffling.
    """

    sizes: tuple[int, ...]
    batch: int
    processes: int
    seed: int

    @property
    def passes_per_epoch(self) -> int:
        """Passes until every clip folder was seen once, but for what does not fill a pass."""
        return sum(self._passes_of(size) for size in self.sizes)

    def requests(self, forward: int, process: int) -> list[Request]:
        """The samples of one process in one pass."""
        epoch, index = divmod(forward, self.passes_per_epoch)
        bucket, videos = _epoch(self, epoch)[index]
        start = process * self.batch
        return [Request(bucket, videos[place], forward, place) for place in range(start, start + self.batch)]

    def _passes_of(self, size: int) -> int:
        return max(1, size // (self.batch * self.processes))


class FromPass(Sequence[list[Request]]):
    """A batch sampler for torch's DataLoader: the requests of a process from one pass to another."""

    def __init__(self, order: Order, process: int, first: int, last: int):
        self.order, self.process, self.first, self.last = order, process, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.order.requests(self.first + index, self.process)

    def __iter__(self) -> Iterator[list[Request]]:
        return (self[index] for index in range(len(self)))


@lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
    """Bucket and clip folders of every pass of an epoch. A bucket smaller than a pass is repeated in it."""
    generator = seeded(order.seed, 0, epoch)
    per_pass = order.batch * order.processes
    passes = []
    for bucket, size in enumerate(order.sizes):
        shuffled = torch.randperm(size, generator=generator).tolist()
        shuffled *= -(-per_pass // size)
        count = max(1, size // per_pass)
        passes += [(bucket, tuple(shuffled[i * per_pass : (i + 1) * per_pass])) for i in range(count)]
    return [passes[i] for i in torch.randperm(len(passes), generator=generator).tolist()]
