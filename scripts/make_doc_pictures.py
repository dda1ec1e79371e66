#!/usr/bin/env python3
"""Makes the pictures of the help pages in web/docs, with the pack's own code.

    python3 scripts/make_doc_pictures.py [NAME ...]

They come from the sample portrait and the shipped motions. No picture needs weights; the one of HJB Report
comes from small random networks and says so.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import env

if TYPE_CHECKING:
    import numpy as np

    from stableanimator_core.pose.people import Clip

    Picture = np.ndarray

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "web" / "docs"
MOTION = REPOSITORY / "assets" / "motion"
JUMPING, JUMPING_WIDE, WALKING = "jumping_jacks_512x512", "jumping_jacks_1768x994", "walk_profile"
PANEL, GAP, CAPTION = 300, 8, 26
GOOD, BAD, PLAIN = (22, 125, 60), (185, 28, 28), (60, 60, 66)
PAPER, INK = (250, 250, 250), (255, 255, 255)


def portrait() -> Picture:
    from skimage import data

    return data.astronaut()


def motion(name: str) -> Clip:
    from stableanimator_core.pose.keypoints import load_pose_json

    return load_pose_json(MOTION / f"{name}.json")


def drawn(frames: Clip, height: int = 512, width: int = 512) -> Picture:
    from stableanimator_core.pose.draw import draw_clip

    return draw_clip(frames, height, width)


def strip(panels: list[tuple[Picture, str, tuple[int, int, int]]], side: int = PANEL) -> Picture:
    """Pictures of one height beside each other, each over a caption on a coloured bar."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    scaled = [
        Image.fromarray(picture).resize((round(picture.shape[1] * side / picture.shape[0]), side))
        for picture, _, _ in panels
    ]
    width = sum(picture.width for picture in scaled) + GAP * (len(scaled) - 1)
    canvas = Image.new("RGB", (width, side + CAPTION), PAPER)
    draw, font, x = ImageDraw.Draw(canvas), ImageFont.load_default(14), 0
    for picture, (_, caption, colour) in zip(scaled, panels, strict=True):
        canvas.paste(picture, (x, 0))
        draw.rectangle((x, side, x + picture.width - 1, side + CAPTION), fill=colour)
        draw.text((x + 8, side + 4), caption, fill=INK, font=font)
        x += picture.width + GAP
    return np.asarray(canvas)


def boxed(picture: Picture, corners: tuple[float, ...]) -> Picture:
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    ImageDraw.Draw(image).rectangle(list(corners), outline=(0, 220, 90), width=3)
    return np.asarray(image)


def photo() -> Picture:
    """Good and bad portraits for Face Embed."""
    import numpy as np
    from PIL import Image
    from sample_inputs import PORTRAIT_FACE

    good = portrait()
    far = np.full_like(good, 190)
    far[440:, 220:292] = np.asarray(Image.fromarray(good).resize((72, 72)))
    cut = good[96:352, 60:316]
    return strip(
        [
            (boxed(good, PORTRAIT_FACE), "good: one face, seen from the front", GOOD),
            (far, "bad: the face is 14 pixels wide", BAD),
            (cut, "bad: the face is cut", BAD),
        ]
    )


def skeleton() -> Picture:
    """What Pose Draw makes."""
    frames = motion(JUMPING)
    shown = [(drawn(frames[n : n + 1])[0], f"frame {n}", PLAIN) for n in (0, 12, 24, 36)]
    return strip(shown, side=240)


def fit() -> Picture:
    """The three ways into a frame of another shape."""
    from stableanimator_core.pose.fit import fit_frames
    from stableanimator_core.pose.people import Frame

    square = motion(JUMPING)[24]
    person = square.people[0].moved(lambda points: 0.5 + (points - 0.5) * [512 / 896, 1])
    frames = [Frame((person,), 896, 512)]
    shown = [(how, drawn(fit_frames(frames, 512, 512, how))[0]) for how in ("contain", "cover", "stretch")]
    wide = drawn(frames, 512, 896)[0]
    return strip([(wide, "the motion", PLAIN), *((picture, how, PLAIN) for how, picture in shown)], side=220)


def colours() -> Picture:
    """Right and swapped colours of a skeleton."""
    right = drawn(motion(JUMPING)[24:25])[0]
    swapped = right[..., ::-1].copy()
    return strip([(right, "good: right arm orange", GOOD), (swapped, "bad: red and blue swapped", BAD)])


def stretched() -> Picture:
    """The photo in a video of its own shape, and of another."""
    import numpy as np

    from stableanimator_core.preprocess import reference_pixels

    def seen(height: int, width: int) -> Picture:
        pixels = reference_pixels(portrait(), height, width)[0].permute(1, 2, 0)
        return ((pixels + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8)

    good, bad = seen(512, 512), seen(1024, 576)
    return strip([(good, "good: square photo, 512 x 512", GOOD), (bad, "bad: 576 x 1024", BAD)])


def align_bad() -> Picture:
    """The overlay of Pose Align without alignment; overlay_picture.py makes the good one."""
    from overlay_picture import portrait_pose

    from stableanimator_core.pose.align import AlignOptions, align
    from stableanimator_core.pose.overlay import contact_sheet

    wanted = portrait_pose()
    result = align(motion(JUMPING)[:5], wanted, AlignOptions(mode="none"), "poses")
    return _resized(contact_sheet(portrait(), result.frames, result.misfit, wanted), 960)


def two_people() -> Picture:
    """Two people in one clip, and each of them alone."""
    from stableanimator_core.pose.people import Frame
    from stableanimator_core.pose.select import select_person

    together = [
        Frame((*first.people, *second.people), first.width, first.height)
        for first, second in zip(motion(JUMPING_WIDE), motion(WALKING), strict=True)
    ]

    def seen(frames: Clip) -> Picture:
        return drawn(frames[24:25], 540, 960)[0][:, 200:680]

    panels = [(seen(together), "how: all", PLAIN)]
    for index in (0, 1):
        frames = select_person(together, "tracked", index).frames
        panels.append((seen(frames), f"how: tracked, index {index}", PLAIN))
    return strip(panels, side=270)


def face_boxes() -> Picture:
    """A skeleton with its face box, and the mask."""
    import numpy as np

    from stableanimator_core.face.boxes import boxes_from_skeleton, boxes_to_masks, pad_boxes

    frames = motion(JUMPING)[24:25]
    picture, panels = drawn(frames)[0], []
    for padding in (0.0, 0.5):
        boxes = pad_boxes(boxes_from_skeleton(frames, 512, 512), padding, 512, 512)
        box = boxes[0][0]
        shown = boxed(picture, (box.left, box.top, box.right, box.bottom))
        panels.append((shown[32:224, 160:352], f"padding {padding}", PLAIN))
    mask = boxes_to_masks(boxes, 512, 512)[0].numpy()
    white = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    return strip([*panels, (white[32:224, 160:352], "its mask", PLAIN)], side=220)


def _bars(rows: list[list[int]], num_frames: int, name: str) -> Picture:
    """Which frames each window or chunk holds: a row of cells for each."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    cell, left, line = 18, 96, 26
    canvas = Image.new("RGB", (left + num_frames * cell + 12, (len(rows) + 1) * line + 12), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    shared = {n for n in range(num_frames) if sum(n in row for row in rows) > 1}
    for n in range(0, num_frames, 4):
        draw.text((left + n * cell, 6), str(n), fill=PLAIN, font=font)
    for row, frames in enumerate(rows):
        y = (row + 1) * line + 4
        draw.text((8, y), f"{name} {row + 1}", fill=PLAIN, font=font)
        for n in frames:
            fill = (226, 140, 20) if n in shared else (60, 120, 200)
            draw.rectangle((left + n * cell, y, left + (n + 1) * cell - 2, y + line - 6), fill=fill)
    return np.asarray(canvas)


def windows() -> Picture:
    """40 frames in windows of 16 with overlap 4."""
    from stableanimator_core.windows import anchored_windows

    return _bars(anchored_windows(40, 16, 4), 40, "window")


def loops() -> Picture:
    """48 frames in looped windows of 24 with overlap 4."""
    from stableanimator_core.windows import looped_windows

    return _bars(looped_windows(48, 24, 4), 48, "window")


def decode_chunks() -> Picture:
    """20 frames in chunks of 8 with overlap 2."""
    from stableanimator_core.windows import chunks

    return _bars([list(range(*part)) for part in chunks(20, 8, 2)], 20, "chunk")


def doctor() -> Picture:
    """The table of a folder that holds two small files only."""
    from stableanimator_core.doctor import examine
    from stableanimator_core.doctor_table import draw_table

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unet.pth").write_bytes(b"cut short")
        return _resized(draw_table(examine([folder])), 860)


def hjb_plot() -> Picture:
    """A real report of small random networks: the look of the plot, not what HJB gains."""
    import torch

    from stableanimator_core.demo_weights import RECOGNISER, VAE
    from stableanimator_core.hjb.options import HJBOptions
    from stableanimator_core.hjb.plot import plot_report
    from stableanimator_core.hjb.refiner import HJBRefiner
    from stableanimator_core.hjb.regions import Box
    from stableanimator_core.models.iresnet import IResNet
    from stableanimator_core.models.vae import build_vae
    from stableanimator_core.sigmas import karras_sigmas

    torch.manual_seed(0)
    decoder = build_vae(VAE).decoder.eval().requires_grad_(False)
    recogniser = IResNet(**RECOGNISER).eval().requires_grad_(False)
    identity, latents = torch.randn(1, 512), 0.2 * torch.randn(6, 4, 16, 16)
    boxes = [[Box(24, 88, 24, 88)] if frame != 3 else [] for frame in range(6)]
    refiner = HJBRefiner(decoder, recogniser, identity, boxes, HJBOptions(mode="late"))
    sigmas = karras_sigmas(10)
    refiner.begin(sigmas)
    for step in range(10):
        latents = refiner(latents, float(sigmas[step]), step)
    return strip(
        [(plot_report(refiner.report), "small random networks: the look of it, not a gain", PLAIN)], side=340
    )


def _resized(picture: Picture, width: int) -> Picture:
    import numpy as np
    from PIL import Image

    height = round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


PICTURES: dict[str, Callable[[], Picture]] = {
    make.__name__: make
    for make in (
        *(photo, skeleton, fit, colours, stretched, align_bad, two_people, face_boxes),
        *(windows, loops, decode_chunks, doctor, hjb_plot),
    )
}


def main() -> int:
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    from test import importable_core

    sys.path.append(str(importable_core()))
    from PIL import Image

    for name in sys.argv[1:] or PICTURES:
        path = TARGET / f"{name}.jpg"
        Image.fromarray(PICTURES[name]()).save(path, quality=82, optimize=True)
        print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
