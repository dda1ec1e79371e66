"""Pictures of an evaluation: clips as dots with means and intervals, and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..hjb.plot import GRID, INK, PAPER
from ..pose.draw import Picture
from .clips import EvaluationClip
from .judging import MEASURES
from .statistics import Estimate
from .stored import Results
from .summary import BASELINE, Summary

SHOWN = ("psnr", "features", "pose", "csim", "csim_climbed")
"""Measures that get a panel."""
DOT, MEAN, DIFFERENCE = (160, 175, 200), (20, 90, 160), (190, 70, 40)
PANEL_WIDTH, ROW, HEAD, NAMES, EDGE = 300, 26, 56, 130, 24
CELL, CAPTION = 168, 22


def plot_means(results: Results, summary: Summary, order: Sequence[str]) -> Picture:
    """Every clip a dot, the mean and its interval a bar: uint8 [H W 3] RGB."""
    names = [name for name in order if name in results]

    def values(name: str, key: str) -> list[float]:
        return [value for clip in results[name].values() if (value := clip.get(key)) is not None]

    def row(name: str, key: str) -> tuple[list[float], Estimate]:
        return values(name, key), summary.means[name][key]

    return _panels(names, row, MEAN, zero=False)


def plot_differences(results: Results, summary: Summary, order: Sequence[str]) -> Picture:
    """Differences to the baseline, clip by clip, and their means with intervals: uint8 [H W 3] RGB."""
    names = [name for name in order if name in summary.differences]
    baseline = results.get(BASELINE, {})

    def row(name: str, key: str) -> tuple[list[float], Estimate]:
        pairs = [(results[name][c].get(key), baseline[c].get(key)) for c in results[name] if c in baseline]
        dots = [a - b for a, b in pairs if a is not None and b is not None]
        return dots, summary.differences[name][key]

    return _panels(names, row, DIFFERENCE, zero=True)


def _panels(names: Sequence[str], row: Any, colour: tuple[int, int, int], *, zero: bool) -> Picture:
    from PIL import Image, ImageDraw

    height = HEAD + ROW * max(1, len(names)) + 2 * EDGE
    image = Image.new("RGB", (NAMES + PANEL_WIDTH * len(SHOWN), height), PAPER)
    draw = ImageDraw.Draw(image)
    for place, name in enumerate(names):
        draw.text((10, HEAD + ROW * place + 6), name, fill=INK)
    for column, key in enumerate(SHOWN):
        left = NAMES + PANEL_WIDTH * column
        _panel(draw, left, key, [row(name, key) for name in names], colour, zero=zero)
    return np.asarray(image).copy()


def _panel(
    draw: Any,
    left: int,
    key: str,
    rows: Sequence[tuple[list[float], Estimate]],
    colour: tuple[int, int, int],
    *,
    zero: bool,
) -> None:
    measure = MEASURES[key]
    right, bottom = left + PANEL_WIDTH - 2 * EDGE, HEAD + ROW * len(rows)
    draw.text(
        (left, 12), f"{measure.label}, {'more' if measure.higher_is_better else 'less'} is better", fill=INK
    )
    every = [v for dots, e in rows for v in (*dots, e.low, e.high) if np.isfinite(v)]
    if not every:
        draw.text((left, HEAD), "not measured", fill=INK)
        return
    low, high = min(every + [0.0] * zero), max(every + [0.0] * zero)
    spread = max(high - low, 1e-9)

    def x(value: float) -> float:
        return left + (value - low) / spread * (right - left)

    for value in (low, (low + high) / 2, high):
        draw.line((x(value), HEAD - 8, x(value), bottom), fill=GRID)
        draw.text((x(value) - 14, bottom + 6), measure.text(value), fill=INK)
    if zero:
        draw.line((x(0), HEAD - 8, x(0), bottom), fill=INK)
    for place, (dots, estimate) in enumerate(rows):
        y = HEAD + ROW * place + ROW // 2
        for dot in dots:
            draw.ellipse((x(dot) - 2, y - 2, x(dot) + 2, y + 2), fill=DOT)
        if np.isfinite([estimate.low, estimate.high]).all():
            draw.line((x(estimate.low), y, x(estimate.high), y), fill=colour, width=3)
        if np.isfinite(estimate.mean):
            draw.ellipse((x(estimate.mean) - 4, y - 4, x(estimate.mean) + 4, y + 4), fill=colour)


def contact_sheet(
    clips: Sequence[EvaluationClip], frames: Mapping[str, Mapping[str, Picture]], frame: int | None = None
) -> Picture:
    """Reference, skeleton, truth and what the systems made, a clip a row: uint8 [H W 3] RGB.

    Args:
        clips: the rows.
        frames: system -> clip -> frames [f H W 3], in the order of the columns.
        frame: which one is shown; the one that is farthest from the reference, by pixels, if left out.
    """
    from PIL import Image, ImageDraw

    heads = ["reference", "skeleton", "truth", *frames]
    sheet = Image.new("RGB", (CELL * len(heads), CAPTION + CELL * len(clips)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        draw.text((column * CELL + 6, 5), head, fill=INK)
    for row, clip in enumerate(clips):
        shown = farthest_frame(clip) if frame is None else frame
        cells = [clip.inputs.reference, clip.inputs.poses[shown], clip.frames[shown]]
        cells += [frames[name][clip.name][shown] for name in frames]
        for column, cell in enumerate(cells):
            picture = Image.fromarray(cell).resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC)
            sheet.paste(picture, (column * CELL, CAPTION + row * CELL))
    return np.asarray(sheet).copy()


def farthest_frame(clip: EvaluationClip) -> int:
    """The frame with a face that differs most from the reference: the hardest one, not the best."""
    error = np.square(clip.frames.astype(np.float64) - clip.inputs.reference).mean(axis=(1, 2, 3))
    return int(np.argmax(np.where(clip.has_face, error, -1.0)))
