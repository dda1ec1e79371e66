"""One training loop for all small networks: schedule, log, checkpoints, resume.

The random numbers of a step depend on the seed and the step's number alone, so a run of fixed steps that was
interrupted ends where an uninterrupted one ends. A run of fixed minutes logs the steps it reached.
"""

from __future__ import annotations

import csv
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError

_WARM_UP = 0.03  # share of the run in which the rate rises
_LAST_RATE = 0.01  # of the peak, at the end
_LOG_EVERY = 20  # steps
_EVALUATIONS = 10


@dataclass(frozen=True)
class Budget:
    """How long to train: steps if given, else minutes of wall-clock time, pauses left out.

    Raises:
        InputError: neither, or not positive.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if not (self.steps or self.minutes) or (self.steps or self.minutes or 0) <= 0:
            raise InputError("the budget", f"is {self}", "give --minutes or --steps, above 0")

    def progress(self, step: int, seconds: float) -> float:
        """0 at the beginning, 1 or more at the end."""
        return step / self.steps if self.steps else seconds / (60 * (self.minutes or 1))


class Stage(ABC):
    """One network to train.

    Attributes:
        name: of its files.
        network: everything that trains, heads that are thrown away included.
        peak_rate: AdamW's learning rate after the warm-up.
        weight_decay: AdamW's.
    """

    name: str
    network: nn.Module
    peak_rate: float = 1e-3
    weight_decay: float = 1e-4

    @abstractmethod
    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """The terms to minimise, weighted already; their sum is the loss. `progress` runs from 0 to 1."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measures on held-out people."""

    @abstractmethod
    def export(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        """Write the network in its official layout below `folder`; the files."""


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    evaluated: int = -1


def train(
    stage: Stage,
    folder: Path,
    budget: Budget,
    *,
    seed: int = 0,
    checkpoint_seconds: float = 60,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train, resuming from `folder`/checkpoints if there is one of this stage.

    Args:
        stage: what to train.
        folder: gets checkpoints/NAME.pt, logs/NAME.csv and logs/NAME_held_out.csv.
        budget: how long.
        seed: of the order of pictures and of augmentation.
        checkpoint_seconds: time between checkpoints.
        report: called with a line of text now and then.

    Returns:
        The last measures on held-out people.
    """
    checkpoint = folder / "checkpoints" / f"{stage.name}.pt"
    optimiser = _optimiser(stage)
    state = _resume(stage, optimiser, checkpoint)
    log = _Log(folder / "logs" / f"{stage.name}.csv", state.step)
    held_out = _Log(folder / "logs" / f"{stage.name}_held_out.csv", state.step)
    begin, saved = time.monotonic() - state.seconds, time.monotonic()
    sums: dict[str, float] = {}
    measures: dict[str, float] = {}
    while (progress := budget.progress(state.step, state.seconds)) < 1:
        rate = _set_rate(optimiser, stage.peak_rate, progress)
        random = np.random.default_rng((seed, state.step))
        for name, value in _step(stage, optimiser, random, progress).items():
            sums[name] = sums.get(name, 0.0) + value / _LOG_EVERY
        state.step += 1
        state.seconds = time.monotonic() - begin
        if state.step % _LOG_EVERY == 0:
            log.write({"step": state.step, "seconds": state.seconds, "rate": rate, **sums})
            sums = {}
        progress = budget.progress(state.step, state.seconds)
        if int(progress * _EVALUATIONS) > state.evaluated or progress >= 1:
            state.evaluated = int(progress * _EVALUATIONS)
            measures = _measure(stage, state, held_out)
            report(_line(stage.name, state, measures))
        if time.monotonic() - saved > checkpoint_seconds or progress >= 1:
            _save(stage, optimiser, state, checkpoint)
            saved = time.monotonic()
    return measures or _measure(stage, state, None)


def _step(
    stage: Stage, optimiser: torch.optim.Optimizer, random: np.random.Generator, progress: float
) -> dict[str, float]:
    stage.network.train()
    optimiser.zero_grad(set_to_none=True)
    terms = stage.losses(random, progress)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    nn.utils.clip_grad_norm_(stage.network.parameters(), 1.0)
    optimiser.step()
    return {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}


def _optimiser(stage: Stage) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    trained = [parameter for parameter in stage.network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.peak_rate, betas=(0.9, 0.98))


def _set_rate(optimiser: torch.optim.Optimizer, peak: float, progress: float) -> float:
    fall = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    rate = peak * fall * min(1.0, progress / _WARM_UP + 0.01)
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


@torch.no_grad()
def _measure(stage: Stage, state: _State, log: _Log | None) -> dict[str, float]:
    stage.network.eval()
    measures = stage.evaluate()
    if log is not None:
        log.write({"step": state.step, "seconds": state.seconds, **measures})
    return measures


def _line(name: str, state: _State, measures: Mapping[str, float]) -> str:
    figures = ", ".join(f"{key} {value:.4g}" for key, value in measures.items())
    return f"{name}: step {state.step}, {state.seconds / 60:.1f} min: {figures}"


def _resume(stage: Stage, optimiser: torch.optim.Optimizer, path: Path) -> _State:
    if not path.exists():
        return _State()
    stored: dict[str, Any] = torch.load(path, weights_only=True)
    stage.network.load_state_dict(stored["network"])
    optimiser.load_state_dict(stored["optimiser"])
    return _State(**stored["state"])


def _save(stage: Stage, optimiser: torch.optim.Optimizer, state: _State, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    stored = {
        "network": stage.network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": vars(state),
    }
    torch.save(stored, part)
    os.replace(part, path)


class _Log:
    """A CSV file of numbers; rows after `step` of an earlier run are dropped."""

    def __init__(self, path: Path, step: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[list[str]] = []
        if path.exists() and step:
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if row and (row[0] == "step" or int(row[0]) <= step)]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        self.named = bool(rows)

    def write(self, row: Mapping[str, float]) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not self.named:
                writer.writerow(row)
                self.named = True
            writer.writerow([value if isinstance(value, int) else f"{value:.6g}" for value in row.values()])
