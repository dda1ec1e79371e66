"""How much memory a piece of PyTorch work holds at once, counted allocation by allocation.

Each operation's results are seen as they are made, and each storage is counted from then until nothing refers
to it. What kernels use inside themselves (workspaces, library buffers) is not seen. Works on the CPU, and on
the meta device, where nothing is computed: the real sizes can then be counted on any machine in a second.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30


class AllocationTracker(TorchDispatchMode):
    """Within `with AllocationTracker() as tracker:` new storages are counted.

    Attributes:
        live: bytes held now by storages made inside.
        peak: the most bytes held at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self._ignore(tensor)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._count(tensor)
        return result

    def _ignore(self, tensor: Any) -> None:
        """Something that was there before is not counted, also if an operation gives it back."""
        if isinstance(tensor, torch.Tensor):
            self._watch(tensor.untyped_storage(), 0)

    def _count(self, tensor: Any) -> None:
        if isinstance(tensor, torch.Tensor):
            storage = tensor.untyped_storage()
            self._watch(storage, storage.nbytes())

    def _watch(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._seen:
            return

        def forget(_: object) -> None:
            self.live -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes `work` holds at once beyond what is there before; `work` is run once."""
    with AllocationTracker() as tracker:
        work()
    return tracker.peak
