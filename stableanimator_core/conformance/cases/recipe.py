"""The recipe that makes every golden's weights, against tensors made by its authors."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import torch

from ..checks import Row, case, exact, relative
from ..golden import Golden, recipe_tensor


@case("recipe_check")
def recipe_check(golden: Golden) -> Iterator[Row]:
    """Seed, first values and the sum of all absolute values of each tensor."""
    for entry in golden.sidecar["tensors"]:
        key, salt, first = entry["key"], entry["salt"], torch.tensor(entry["first_values"])
        yield exact(f"{key}: seed", zlib.crc32((salt + key).encode()), entry["seed"])
        tensor = recipe_tensor(key, tuple(entry["shape"]), salt)
        yield exact(f"{key}: first values", tensor.flatten()[: len(first)], first)
        total = torch.tensor(entry["abs_sum_float64"], dtype=torch.float64)
        yield relative(f"{key}: sum", tensor.double().abs().sum(), total, 1e-12)
