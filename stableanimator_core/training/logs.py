"""What a run tells: lines for people, `metrics.jsonl` for programs, TensorBoard's files if wanted and installed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

LOGGER = logging.getLogger("stableanimator.training")


def log_to(output: Path) -> None:
    """Lines of `LOGGER` to the screen and to `train.log`; of the main process only."""
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    for handler in (logging.StreamHandler(), logging.FileHandler(output / "train.log", encoding="utf-8")):
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        LOGGER.addHandler(handler)


class Metrics:
    """One JSON object a line, each with its step.

    Args:
        output: the run's folder.
        step: the step training goes on from; later lines of an interrupted run are removed.
        tensorboard: also write TensorBoard's files to `output/tensorboard`.
    """

    def __init__(self, output: Path, step: int, *, tensorboard: bool):
        self.path = output / "metrics.jsonl"
        _cut(self.path, step)
        self._file = self.path.open("a", encoding="utf-8")
        self._board: Any = _board(output / "tensorboard", step) if tensorboard else None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """A line, and a point in each of TensorBoard's curves."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """A picture uint8 [H W 3] for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write everything out."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        LOGGER.warning("TensorBoard is not installed (pip install tensorboard): metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
