#!/usr/bin/env python3
"""Draws the loss curves of the small demo model from its logs: weights/small/logs -> weights/small/curves.png."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
LOGS = REPOSITORY / "weights" / "small" / "logs"
COLUMNS, CELL = 3, (420, 260)
POINTS = 150  # of a curve: means of neighbours, so that noise does not hide the course


def losses(log: Path) -> list[float]:
    """The column `loss` of a log, in order."""
    if log.suffix == ".csv":
        with log.open(newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]
    rows = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def smooth(values: list[float]) -> list[float]:
    """At most `POINTS` means of neighbours."""
    return [float(part.mean()) for part in np.array_split(values, min(POINTS, len(values)))]


def draw(logs: list[Path]) -> np.ndarray:
    """One panel a log: uint8 [H W 3] RGB."""
    from PIL import Image, ImageDraw

    from stableanimator_core.hjb.plot import LOSS, PAPER, panel

    rows = -(-len(logs) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * CELL[0], rows * CELL[1]), PAPER)
    canvas = ImageDraw.Draw(image)
    for number, log in enumerate(logs):
        left, top = number % COLUMNS * CELL[0], number // COLUMNS * CELL[1]
        title = f"{log.stem.replace('_', ' ')}: loss"
        panel(canvas, (left, top, left + CELL[0], top + CELL[1]), title, [(smooth(losses(log)), LOSS, "")])
    return np.asarray(image)


def main() -> None:
    sys.path.insert(0, str(REPOSITORY))
    from PIL import Image

    logs = sorted(path for path in LOGS.iterdir() if not path.stem.endswith("_held_out"))
    Image.fromarray(draw(logs)).save(LOGS.parent / "curves.png", optimize=True)


if __name__ == "__main__":
    main()
