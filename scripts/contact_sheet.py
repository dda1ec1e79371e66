"""What the pack did in one picture: photo, skeleton and result side by side, for some frames or moving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL, MOVING_CELL = 232, 256
GAP = 10
CAPTION = 26
BLOCKS_ABREAST = 2
BACKGROUND, TEXT, MUTED, WARNING = "#17181c", "#f2f2f2", "#a6a8b0", "#ffb74d"


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` indices spread over `count`, the first and the last among them; fewer if there are fewer.

    >>> evenly(16, 4)
    [0, 5, 10, 15]
    """
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def contact_sheet(
    reference: Image.Image,
    poses: Sequence[Image.Image],
    results: Sequence[Image.Image],
    *,
    title: str,
    warning: str = "",
    frames: int = 8,
) -> Image.Image:
    """Blocks of photo | skeleton | result, two abreast, `frames` of them, under `title` and `warning`."""
    chosen = evenly(min(len(poses), len(results)), frames)
    rows = -(-len(chosen) // BLOCKS_ABREAST)
    head = GAP + 34 + (28 if warning else 0) + CAPTION
    block = 3 * CELL + 2 * 3 + 2 * GAP  # three cells, hairlines between them
    width = 2 * GAP + BLOCKS_ABREAST * block
    sheet = Image.new("RGB", (width, head + rows * (CELL + CAPTION + GAP) + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, GAP), title, fill=TEXT, font=ImageFont.load_default(24))
    if warning:
        pen.text((2 * GAP, GAP + 34), warning, fill=WARNING, font=ImageFont.load_default(19))
    for place, frame in enumerate(chosen):
        row, column = divmod(place, BLOCKS_ABREAST)
        left, top = 2 * GAP + column * block, head + row * (CELL + CAPTION + GAP)
        for i, (caption, picture) in enumerate(
            (("photo", reference), ("pose", poses[frame]), (f"result, frame {frame + 1}", results[frame]))
        ):
            corner = (left + i * (CELL + 3), top)
            shown = ImageOps.pad(
                picture.convert("RGB"), (CELL, CELL), method=Image.Resampling.LANCZOS, color=BACKGROUND
            )
            sheet.paste(shown, corner)
            pen.text((corner[0] + 2, top + CELL + 4), caption, fill=MUTED, font=ImageFont.load_default(16))
    return sheet


def save_moving(
    path: Path,
    reference: Image.Image,
    poses: Sequence[Image.Image],
    results: Sequence[Image.Image],
    fps: float,
) -> None:
    """A GIF of photo | skeleton | result that plays for ever."""
    side, frames = (MOVING_CELL, MOVING_CELL), []
    for pose, result in zip(poses, results, strict=True):
        frame = Image.new("RGB", (3 * MOVING_CELL + 6, MOVING_CELL), BACKGROUND)
        for place, picture in enumerate((reference, pose, result)):
            shown = ImageOps.pad(picture.convert("RGB"), side, method=Image.Resampling.LANCZOS)
            frame.paste(shown, (place * (MOVING_CELL + 3), 0))
        frames.append(frame.quantize(256))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)
