"""The model doctor's rows as a picture, for places where no text can be shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .doctor import Row

STATE_COLOURS = {
    "ok": (22, 125, 60),
    "bad": (185, 28, 28),
    "missing": (190, 110, 0),
    "optional": (90, 90, 90),
}
_COLUMNS = (("state", 90), ("file", 320), ("size", 110), ("what was found", 480))
_FONT, _PAD = 15, 8
_LETTER = 0.5  # mean width of a letter in font sizes
_DARK, _LINE, _WHITE = (24, 26, 30), (70, 74, 82), (235, 235, 235)


def draw_table(rows: Sequence[Row], notes: Sequence[str] = ()) -> NDArray[np.uint8]:
    """One line for each file, coloured and worded by its state: uint8 [H W 3].

    Args:
        rows: of `doctor.examine`.
        notes: lines below the table.
    """
    font = ImageFont.load_default(_FONT)
    width = sum(column for _, column in _COLUMNS)
    table = [tuple(name for name, _ in _COLUMNS), *(_cells(row) for row in rows)]
    wrapped = [
        [_wrapped(cell, side) for cell, (_, side) in zip(line, _COLUMNS, strict=True)] for line in table
    ]
    heights = [max(len(cell) for cell in line) * (_FONT + 4) + 2 * _PAD for line in wrapped]
    below = [line for note in notes for line in _wrapped(note, width)]
    canvas = Image.new("RGB", (width, sum(heights) + len(below) * (_FONT + 4) + 2 * _PAD), _DARK)
    pen = ImageDraw.Draw(canvas)
    y = 0
    for number, (line, height) in enumerate(zip(wrapped, heights, strict=True)):
        if number:
            pen.rectangle(
                (0, y + 2, _COLUMNS[0][1] - 2, y + height - 2), fill=STATE_COLOURS[table[number][0]]
            )
        x = 0
        for cell, (_, side) in zip(line, _COLUMNS, strict=True):
            pen.multiline_text((x + _PAD, y + _PAD), "\n".join(cell), fill=_WHITE, font=font)
            x += side
        y += height
        pen.line((0, y, width, y), fill=_LINE)
    pen.multiline_text((_PAD, y + _PAD), "\n".join(below), fill=_WHITE, font=font)
    return np.asarray(canvas)


def _cells(row: Row) -> tuple[str, str, str, str]:
    name = row.label if row.path is None else f"{row.label}: {row.path.name}"
    size = row.size if row.path else row.published_size
    found = row.layout if row.state == "ok" else f"{row.problem}; {row.remedy}"
    return row.state, name, f"{size / 1e6:,.1f} MB", f"{found}. Licence: {row.licence}"


def _wrapped(text: str, side: int) -> list[str]:
    return textwrap.wrap(text, int((side - 2 * _PAD) / (_LETTER * _FONT))) or [""]
