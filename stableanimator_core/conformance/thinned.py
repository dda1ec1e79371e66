"""Tensors of a golden file, in full or thinned.

A thinned file is a safetensors file whose metadata says how some of its tensors are stored, under the key `thinned`, as
JSON of name -> {shape, stride} for a tensor that is sampled and name -> {shape, dtype} for one that is compressed: zlib
over the first bytes of all elements, then the second bytes and so on, which gives floats something to repeat. Sampled
tensors can only be compared with; compressed ones are as good as full ones. A file without that key is full.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError

METADATA = "thinned"


@dataclass(frozen=True)
class Sampled:
    """Every `stride`-th element of a tensor that is not stored itself.

    Attributes:
        shape: the whole tensor's.
        stride: distance between two elements, counted in the flattened tensor.
        values: [n] the elements.
        first: place of the first one.
    """

    shape: tuple[int, ...]
    stride: int
    values: Tensor
    first: int = 0

    def of(self, whole: Tensor) -> Tensor:
        """The same elements [n] of a tensor of this shape."""
        return whole.reshape(-1)[self.first :: self.stride]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Sampled]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sampled:
        """What is known of `whole[index]`."""
        index = range(len(self))[index]  # negative ones count from the end, others raise IndexError
        size = math.prod(self.shape[1:])
        before, after = (-((self.first - place * size) // self.stride) for place in (index, index + 1))
        before, after = max(before, 0), max(after, 0)
        first = self.first + before * self.stride - index * size
        return Sampled(self.shape[1:], self.stride, self.values[before:after], first)


Expected = Tensor | Sampled


def values_of(expected: Expected) -> Tensor:
    """All that is known of a tensor: itself, or the sampled elements [n]."""
    return expected.values if isinstance(expected, Sampled) else expected


def load_tensors(path: Path) -> dict[str, Expected]:
    """All tensors of a full or thinned golden file, by name."""
    with safe_open(str(path), framework="pt", device="cpu") as file:
        forms = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        return {name: _restored(file.get_tensor(name), forms.get(name)) for name in file.keys()}  # noqa: SIM118


def _restored(stored: Tensor, form: Mapping[str, Any] | None) -> Expected:
    if form is None:
        return stored
    if "stride" in form:
        return Sampled(tuple(form["shape"]), form["stride"], stored)
    return _decompressed(stored, form["shape"], np.dtype(form["dtype"]))


def _compressed(tensor: Tensor) -> Tensor:
    values = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    planes = values.view(np.uint8).reshape(len(values), -1).T  # [bytes of an element, elements]
    return torch.frombuffer(bytearray(zlib.compress(planes.tobytes(), 9)), dtype=torch.uint8)


def _decompressed(stored: Tensor, shape: list[int], dtype: np.dtype[Any]) -> Tensor:
    planes = np.frombuffer(zlib.decompress(stored.numpy().tobytes()), np.uint8).reshape(dtype.itemsize, -1)
    return torch.from_numpy(np.array(planes.T, order="C").view(dtype).reshape(shape))


def save_thinned(
    path: Path, tensors: Mapping[str, Tensor], strides: Mapping[str, int], compressed: Collection[str]
) -> None:
    """Write a golden file.

    Args:
        path: where to.
        tensors: all of them, in full.
        strides: name -> stride of those to sample.
        compressed: names of those to compress.

    Raises:
        InputError: a stride shares a factor with its tensor's size, so that whole rows or channels would be left out.
    """
    stored: dict[str, Tensor] = {}
    forms: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name in strides:
            stride = strides[name]
            if math.gcd(stride, tensor.numel()) != 1:
                raise InputError(
                    name, f"of shape {list(tensor.shape)} and stride {stride}", "use another prime number"
                )
            stored[name] = tensor.reshape(-1)[::stride].clone()
            forms[name] = {"shape": list(tensor.shape), "stride": stride}
        elif name in compressed:
            stored[name] = _compressed(tensor)
            forms[name] = {"shape": list(tensor.shape), "dtype": str(tensor.numpy().dtype)}
        else:
            stored[name] = tensor
    save_file(stored, str(path), {METADATA: json.dumps(forms, sort_keys=True)} if forms else None)
