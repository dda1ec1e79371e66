"""Inputs that anyone may use: NASA's portrait of Eileen Collins (public domain), the motions in `assets/`."""

from __future__ import annotations

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PORTRAIT = "astronaut.png"
PORTRAIT_FACE = (176, 70, 272, 190)  # left, top, right, bottom, by eye
FACE_MASK = "astronaut_face.png"
MOTION = REPOSITORY / "assets" / "motion" / "jumping_jacks_512x512.json"
SUFFIXES = (".json", ".png", ".jpg", ".mp4", ".webm")


def write_portrait(path: Path) -> Path:
    """512x512, the face about 95 pixels wide; it lies in the scikit-image wheel."""
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()).save(path)
    return path


def write_face_mask(path: Path) -> Path:
    """White where the portrait's face is, as an artist would paint it."""
    from PIL import Image

    mask = Image.new("RGB", (512, 512))
    mask.paste((255, 255, 255), PORTRAIT_FACE)
    mask.save(path)
    return path


def put_into(folder: Path, more: str | Path | None = None) -> None:
    """The portrait and the samples of `assets/` and `more`, flat, as in a user's input folder."""
    write_portrait(folder / PORTRAIT)
    for source in [REPOSITORY / "assets", *([Path(more)] if more else [])]:
        for path in sorted(source.rglob("*")):
            if path.suffix in SUFFIXES:
                shutil.copy(path, folder / path.name)
