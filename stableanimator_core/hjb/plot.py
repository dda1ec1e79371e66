"""The report of the face optimisation as a picture: loss over the run, cosine per frame before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .report import HJBReport

Series = Sequence[float | None]

PAPER, INK, GRID = (255, 255, 255), (40, 40, 40), (215, 215, 215)
BEFORE, AFTER, LOSS = (150, 150, 150), (20, 130, 90), (190, 70, 40)
MARGIN = 56  # pixels around a panel, for its numbers


def plot_report(report: HJBReport, *, width: int = 960, height: int = 400) -> np.ndarray:
    """The report as a picture, uint8 [height width 3] RGB.

    Left: the loss before each Adam step, all steps in a row. Right: each frame's cosine to the reference face
    in the first optimised step before, and in the last after; frames without a face are gaps.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    middle = width // 2
    losses = [loss for step in report.steps for loss in step.losses]
    panel(draw, (0, 0, middle, height), "identity loss, each Adam step", [(losses, LOSS, "loss")])
    before = report.steps[0].before if report.steps else []
    after = report.steps[-1].last_seen if report.steps else []
    series = [(before, BEFORE, "before"), (after, AFTER, "after")]
    panel(draw, (middle, 0, width, height), "cosine to the reference, each frame", series)
    return np.asarray(image).copy()


def panel(
    draw: Any, frame: tuple[int, int, int, int], title: str, lines: Sequence[tuple[Series, Any, str]]
) -> None:
    """One diagram within the rectangle left, top, right, bottom."""
    left, top, right, bottom = frame[0] + MARGIN, frame[1] + MARGIN, frame[2] - MARGIN // 2, frame[3] - MARGIN
    draw.text((left, frame[1] + 14), title, fill=INK)
    draw.rectangle((left, top, right, bottom), outline=GRID)
    seen = [value for values, _, _ in lines for value in values if value is not None and np.isfinite(value)]
    if not seen:
        draw.text((left + 8, top + 8), "nothing was optimised", fill=INK)
        return
    low, high = _range(seen)
    for value in np.linspace(low, high, 5):
        y = bottom - (value - low) / (high - low) * (bottom - top)
        draw.line((left, y, right, y), fill=GRID)
        draw.text((frame[0] + 6, y - 6), f"{value:.3f}", fill=INK)
    for place, (values, colour, name) in enumerate(lines):
        xs = np.linspace(left, right, max(len(values), 2))
        points = [
            (x, bottom - (value - low) / (high - low) * (bottom - top))
            for x, value in zip(xs, values, strict=False)
            if value is not None and np.isfinite(value)
        ]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        draw.text((left + place * 90, bottom + 26), name, fill=colour)
    draw.text((left, bottom + 8), "0", fill=INK)
    draw.text((right - 20, bottom + 8), str(max(len(values) for values, _, _ in lines) - 1), fill=INK)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    spare = max((high - low) * 0.1, 1e-3)
    return low - spare, high + spare
