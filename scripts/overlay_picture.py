#!/usr/bin/env python3
"""Pictures of the alignment: the motion of a real clip laid over the portrait, and the workflows' thumbnails.

    python scripts/overlay_picture.py

Needs the environment of `scripts/env.py`. The portrait's joints are placed by eye; the motion is the start of
the shipped one, before the man leaves the ground, since a jump leaves a portrait.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from stableanimator_core.pose.align import AlignOptions, align
from stableanimator_core.pose.draw import draw_frame
from stableanimator_core.pose.keypoints import load_pose_json
from stableanimator_core.pose.overlay import contact_sheet, overlay
from stableanimator_core.pose.people import JOINT, Frame, Person

REPOSITORY = Path(__file__).resolve().parent.parent
MOTION = REPOSITORY / "assets" / "motion" / "jumping_jacks_1768x994.json"
PICTURE = REPOSITORY / "web" / "docs" / "align_overlay.jpg"
FRAMES = 5
WORKFLOWS = REPOSITORY / "workflows"
JOINTS = {
    **{
        "nose": (226, 127),
        "r_eye": (204, 102),
        "l_eye": (248, 103),
        "r_ear": (178, 113),
        "l_ear": (272, 115),
    },
    **{"neck": (212, 268), "r_shoulder": (104, 270), "l_shoulder": (320, 270), "r_elbow": (52, 412)},
}
"""Pixels of the 512x512 portrait; the rest of the body is out of sight."""


def portrait_pose() -> Frame:
    body, score = np.zeros((18, 2)), np.zeros(18)
    for name, place in JOINTS.items():
        body[JOINT[name]], score[JOINT[name]] = np.array(place) / 512, 1.0
    return Frame((Person(body=body, body_score=score),), 512, 512)


def main() -> None:
    portrait, reference = data.astronaut(), portrait_pose()
    result = align(
        load_pose_json(MOTION)[:FRAMES], reference, AlignOptions(mode="limbs", lock_first_frame=True)
    )
    sheet = contact_sheet(portrait, result.frames, result.misfit, reference)
    save(sheet, PICTURE)
    best = int(np.nanargmin(result.misfit.per_frame))
    fitted = overlay(portrait, result.frames[best], result.misfit, reference)
    save(fitted, WORKFLOWS / "align-and-preview-poses.jpg")
    skeleton = draw_frame(result.frames[best], 512, 512)
    save(np.concatenate([portrait, fitted, skeleton], axis=1), WORKFLOWS / "animate-from-video.jpg")


def save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, quality=82, optimize=True)
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
