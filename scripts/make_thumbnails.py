#!/usr/bin/env python3
"""Makes the gallery pictures of the workflows that need no video: what goes in, drawn by the pack's own code.

    python scripts/make_thumbnails.py

No result is shown: the pictures are honest without weights. Run it in the environment of scripts/env.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

REPOSITORY = Path(__file__).resolve().parent.parent
SIDE, GAP = 240, 6
PAPER, INK, ACCENT = (24, 24, 27), (244, 244, 245), (34, 197, 94)


def skeletons(every: int, count: int) -> list[Image]:
    from PIL import Image

    from stableanimator_core.pose.draw import draw_clip
    from stableanimator_core.pose.keypoints import load_pose_json

    frames = load_pose_json(REPOSITORY / "assets" / "motion" / "jumping_jacks_512x512.json")[::every][:count]
    return [Image.fromarray(picture).resize((SIDE, SIDE)) for picture in draw_clip(frames, 512, 512)]


def portrait(face: bool = False) -> Image:
    from PIL import Image, ImageDraw
    from sample_inputs import PORTRAIT_FACE
    from skimage import data

    picture = Image.fromarray(data.astronaut())
    if face:
        ImageDraw.Draw(picture).rectangle(PORTRAIT_FACE, outline=ACCENT, width=6)
    return picture.resize((SIDE, SIDE))


def row(pictures: list[Image], caption: str) -> Image:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (len(pictures) * (SIDE + GAP) + GAP, SIDE + 2 * GAP + 30), PAPER)
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (GAP + number * (SIDE + GAP), GAP))
    ImageDraw.Draw(sheet).text((GAP + 4, SIDE + GAP + 6), caption, fill=INK, font_size=18)
    return sheet


def face_close() -> Image:
    from sample_inputs import PORTRAIT_FACE

    left, top, right, bottom = (side * SIDE // 512 for side in PORTRAIT_FACE)
    return portrait().crop((left - 12, top - 12, right + 12, bottom + 12)).resize((SIDE, SIDE))


def main() -> None:
    folder = REPOSITORY / "workflows"
    pictures = {
        "animate-anyone-photo": row([portrait(), *skeletons(4, 3)], "Animate Anyone: one photo + keypoints"),
        "animate-from-keypoints": row([portrait(), *skeletons(3, 3)], "one photo + keypoints"),
        "long-clip": row([portrait(), *skeletons(12, 4)], "one photo + any number of frames, in windows"),
        "keep-the-face-hjb": row(
            [portrait(face=True), face_close(), *skeletons(9, 1)], "hold on to this face"
        ),
    }
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
