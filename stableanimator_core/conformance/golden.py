"""Golden files: a case's tensors, its sidecar, and the weights its recipe makes.

A folder of goldens holds `<case>.json` (sidecar) beside `<case>.safetensors`, in full or thinned. Weights are not
stored: each tensor is drawn from a generator seeded by its name, so any model with the right state-dict keys can be
filled exactly.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from .thinned import Expected, Sampled, load_tensors

Network = TypeVar("Network", bound=nn.Module)
POSITION_TABLE = "pos_encoder.pe"
"""Ending of entries that are no weights although they are in the file."""


@dataclass(frozen=True)
class Golden:
    """One case of a golden folder.

    Attributes:
        name: file stem, for example `pipeline_a`.
        folder: where the files lie.
        sidecar: the parsed `<name>.json`.
    """

    name: str
    folder: Path
    sidecar: dict[str, Any]

    @cached_property
    def tensors(self) -> dict[str, Expected]:
        """All tensors of `<name>.safetensors`, by name."""
        return load_tensors(self.folder / f"{self.name}.safetensors")

    def __getitem__(self, tensor_name: str) -> Tensor:
        """A tensor to compute with.

        Raises:
            InputError: only samples of it are stored.
        """
        tensor = self.tensors[tensor_name]
        if isinstance(tensor, Sampled):
            raise InputError(
                f"{self.name}: {tensor_name}",
                "is only sampled here",
                "compare with `expected`, or store it in full",
            )
        return tensor

    def expected(self, tensor_name: str) -> Expected:
        """A tensor to compare with, which may be a sampled one."""
        return self.tensors[tensor_name]

    @property
    def salt(self) -> str:
        return self.sidecar["salt"]

    def json(self, file_name: str) -> Any:
        """Another JSON file of the folder, for example a key list."""
        return json.loads((self.folder / file_name).read_text())

    def fill(
        self, module: Network, overrides: Mapping[str, float] | None = None, *, model: str = ""
    ) -> Network:
        """Give `module` the recipe's weights in place; see `recipe_tensor`.

        Args:
            module: any network; its own state-dict keys seed the weights.
            overrides: state-dict key -> value written over the whole tensor afterwards.
            model: the network's name, where several of the case have the same keys; it seeds the weights too.
        """
        state = recipe_state(module.state_dict(), f"{self.salt}{model}/" if model else self.salt)
        for key, value in (overrides or {}).items():
            state[key].fill_(value)
        module.load_state_dict(state)
        return module.eval().requires_grad_(False)


def open_golden(folder: Path, name: str) -> Golden:
    """The case `name` of `folder`."""
    return Golden(name, Path(folder), json.loads((Path(folder) / f"{name}.json").read_text()))


def recipe_state(state: Mapping[str, Tensor], salt: str) -> dict[str, Tensor]:
    """A state dict of the same keys and shapes, filled by the recipe.

    Integer entries and motion modules' position tables stay as they are.
    """
    return {
        key: recipe_tensor(key, tuple(old.shape), salt).to(old.dtype)
        if old.is_floating_point() and not key.endswith(POSITION_TABLE)
        else old.clone()
        for key, old in state.items()
    }


def recipe_tensor(key: str, shape: tuple[int, ...], salt: str, *, keyed: str | None = None) -> Tensor:
    """The recipe's float32 tensor for one state-dict entry.

    Seed: CRC-32 of salt + key. Matrices and filters are scaled by 1/sqrt(fan_in), norm gains lie around 1,
    variances above 1, all else is small.

    Args:
        key: state-dict key; its ending chooses the rule.
        shape: shape of the entry.
        salt: the golden set's salt.
        keyed: the text hashed after the salt, if it is not `key` itself.
    """
    seed = zlib.crc32((salt + (keyed or key)).encode())
    draw = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        draw = draw * np.float32(1.0 / np.sqrt(np.prod(shape[1:])))
    elif len(shape) == 1 and key.endswith(".weight"):
        draw = np.float32(1.0) + np.float32(0.1) * draw
    elif key.endswith("running_var"):
        draw = np.float32(1.0) + np.float32(0.1) * np.abs(draw)
    else:
        draw = np.float32(0.1) * draw
    return torch.from_numpy(np.asarray(draw, dtype=np.float32))
