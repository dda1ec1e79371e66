"""Find the cases of a golden folder and run them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch

from ..errors import InputError
from .checks import CASES, Row
from .golden import open_golden


def cases_in(folder: Path) -> list[str]:
    """Names of the golden cases of `folder`: its sidecars, without key lists and the like.

    Raises:
        InputError: the folder holds no case.
    """
    not_cases = ("keys_*", "attn_processors_*")
    names = sorted(path.stem for path in Path(folder).glob("*.json"))
    names = [name for name in names if not any(fnmatch(name, pattern) for pattern in not_cases)]
    if not names:
        raise InputError(
            str(folder), "holds no golden files", "name a folder with <case>.json and <case>.safetensors"
        )
    return names


def run_case(folder: Path, name: str) -> list[Row]:
    """The rows of one case. One that nobody knows, that breaks off, or that compares nothing has a failed row: a golden
    that is not checked proves nothing, and the other cases still have to run.
    """
    from . import cases  # noqa: F401  (registers every case; imports models only now)

    fitting = [stem for stem in CASES if fnmatch(name, stem)]
    if not fitting:
        return [_failed("no check is written for this case")]
    function = CASES[max(fitting, key=len)]  # `pipeline_long_*` before `pipeline_*`
    rows: list[Row] = []
    try:
        with torch.no_grad(), _one_thread():
            rows.extend(function(open_golden(folder, name)))
    except Exception as error:
        logging.exception("%s broke off", name)
        rows.append(_failed(f"broke off: {type(error).__name__}: {error}"))
    return rows or [_failed("nothing was compared")]


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums in the same order on every machine. Two threads round otherwise, and Adam, whose first step asks
    only for the sign of a gradient, then moves an element with a gradient of nearly zero by the whole learning rate.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _failed(why: str) -> Row:
    return Row(why, float("nan"), 0.0)
