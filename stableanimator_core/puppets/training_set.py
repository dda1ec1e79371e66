"""Clips of puppets on disk: a training set in the layout that training reads.

Its worker processes find what they run by this module's name: in `__main__` they would find nothing.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ..errors import InputError
from .clip import LEAST_SIZE, at_least, make_clip

HELD_OUT = 1_000_000
"""Persons and motions from this number on are never trained on."""


def write_clip(folder: Path, person: int, motion: int, num_frames: int, size: int) -> None:
    """One clip as images, poses and faces (frame_0.png ...), and who it is in person.json."""
    from PIL import Image

    clip = make_clip(person, motion, num_frames, size)
    for name, pictures in (("images", clip.frames), ("poses", clip.skeletons()), ("faces", clip.face_masks)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / name / f"frame_{number}.png", compress_level=1)
    (folder / "person.json").write_text(json.dumps({"person": person, "motion": motion}) + "\n")


def write_set(
    root: Path,
    persons: int,
    clips: int,
    num_frames: int,
    size: int,
    first: int = 0,
    workers: int = 2,
    name: str = "rec",
) -> list[Path]:
    """Clips of `persons` people below `root`/`name`, and video_NAME_path.txt with their folders; the folders.

    Raises:
        InputError: a number that is too small, or numbers on both sides of `HELD_OUT`.
    """
    at_least(1, persons=persons, clips=clips, frames=num_frames, workers=workers)
    at_least(0, first=first)
    at_least(LEAST_SIZE, size=size)
    if first < HELD_OUT < first + clips:
        problem = f"and {clips} clips from it on reach over {HELD_OUT}, where the held-out numbers begin"
        raise InputError(f"first = {first}", problem, "take a smaller or a larger first number")
    numbers = [(first + i % persons, first + i) for i in range(clips)]
    folders = [root / name / f"{i + 1:05}" for i in range(clips)]
    work = partial(_one, num_frames=num_frames, size=size)
    jobs = zip(folders, numbers, strict=True)
    if workers == 1:
        for job in jobs:
            work(job)
    else:
        # spawned, not forked: a fork of a process with threads, such as torch's, may wait for a lock for ever
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(work, jobs, chunksize=4):
                pass
    (root / f"video_{name}_path.txt").write_text(
        "".join(f"{folder.relative_to(root).as_posix()}\n" for folder in folders)
    )
    return folders


def _one(job: tuple[Path, tuple[int, int]], num_frames: int, size: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    folder, (person, motion) = job
    write_clip(folder, person, motion, num_frames, size)
