"""The clip folders of a data set: which frames are complete, and what is left out and why.

Layout: `animation_data/rec/00001/{images,poses,faces}/frame_0.png`, README of Francis-Rings/StableAnimator
@ 020e7f2. Images may be .png or .jpg; poses and faces are .png of the same stem. Frames are in the order of the
number in their name.
Difference: the official loader takes a missing mask for "face everywhere" and an unreadable pose for grey.
Here such a frame is left out: of each clip folder the longest run of complete frames is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .settings import Bucket, Data

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclass(frozen=True)
class Video:
    """One clip folder.

    Attributes:
        folder: holds images, poses, faces.
        images: its frames in order; pose and mask lie beside them.
    """

    folder: Path
    images: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def pose(self, frame: int) -> Path:
        """The skeleton picture of a frame."""
        return self.folder / "poses" / f"{self.images[frame].stem}.png"

    def face(self, frame: int) -> Path:
        """The face mask of a frame."""
        return self.folder / "faces" / f"{self.images[frame].stem}.png"


@dataclass
class Report:
    """What was left out.

    Attributes:
        skipped: clip folder -> why it is not used at all.
        dropped: clip folder -> reasons of frames that are not used, "frame_7: ...".
        used: clip folder -> frames used.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """As JSON."""
        content = {"used": self.used, "skipped": self.skipped, "dropped_frames": self.dropped}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """In words: the totals, then every folder left out."""
        frames, lost = sum(self.used.values()), sum(map(len, self.dropped.values()))
        total = f"{len(self.used)} clip folders with {frames} frames are used; {lost} frames and "
        total += f"{len(self.skipped)} folders are left out"
        return [total, *(f"left out: {folder}: {reason}" for folder, reason in self.skipped.items())]


def find_videos(data: Data, report: Report) -> list[list[Video]]:
    """The usable clip folders of every bucket.

    Args:
        data: where they are.
        report: what was left out is added to it.

    Raises:
        InputError: a folder or list is missing, or a bucket has no usable clip folder.
    """
    buckets = []
    for bucket in data.buckets:
        found = [
            video
            for folder in clip_folders(data.root, bucket)
            if (video := _usable(folder, data, report)) is not None
        ]
        if not found:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(report.skipped.items())[:3])
            problem = f"has no usable clip folder ({reasons or 'it is empty'})"
            remedy = "give clip folders with images, poses and faces of more frames than a clip has"
            raise InputError(f"bucket {bucket.folder}", problem, remedy)
        buckets.append(found)
    return buckets


def clip_folders(root: Path, bucket: Bucket) -> list[Path]:
    """The folders that the bucket's list names, or all in its folder.

    A line of the list may be absolute, or start at the list, at `root` or at the bucket's folder.

    Raises:
        InputError: the folder or the list is missing.
    """
    folder = root / bucket.folder
    if bucket.list is None:
        if not folder.is_dir():
            raise InputError(
                f"bucket {bucket.folder}", f"{folder} is no folder", "mend data.root or the name"
            )
        return sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name)
    listed = root / bucket.list
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        problem = f"{listed} cannot be read ({error.strerror})"
        raise InputError(f"bucket {bucket.folder}", problem, "mend the name of the list") from error
    places = (listed.parent, root, folder)
    return [_first_folder(places, line.strip()) for line in lines if line.strip()]


def read_video(folder: Path, report: Report, *, check_pixels: bool = False) -> Video | None:
    """The longest run of complete frames of a clip folder; None if there is none, then `report` says why."""
    name = str(folder)
    images = _images(folder)
    if not images:
        report.skipped[name] = "no pictures in images/" if folder.is_dir() else "no such folder"
        return None
    video = Video(folder, tuple(images))
    faults = [_fault(video, frame, check_pixels) for frame in range(len(video))]
    start, stop = _longest_run([fault is None for fault in faults])
    lost = [f"{image.stem}: {fault}" for image, fault in zip(images, faults, strict=True) if fault]
    unused = [image.stem for image in images[:start] + images[stop:]]
    lost += [f"{stem}: not in the longest run" for stem in unused if not _named(stem, lost)]
    if lost:
        report.dropped[name] = lost
    if start == stop:
        report.skipped[name] = f"no complete frame ({lost[0]})"
        return None
    return Video(folder, tuple(images[start:stop]))


def _usable(folder: Path, data: Data, report: Report) -> Video | None:
    name = str(folder)
    video = read_video(folder, report, check_pixels=data.check_pixels)
    if video is None:
        return None
    if len(video) <= data.num_frames:
        because = f" ({report.dropped[name][0]})" if name in report.dropped else ""
        report.skipped[name] = (
            f"{len(video)} frames in a row, {data.num_frames} go into a clip and one is the reference{because}"
        )
        return None
    report.used[name] = len(video)
    return video


def _images(folder: Path) -> list[Path]:
    """Pictures by number, then name; of one stem the first suffix counts."""
    found: dict[str, Path] = {}
    directory = folder / "images"
    for suffix in IMAGE_SUFFIXES:
        for path in directory.glob(f"*{suffix}") if directory.is_dir() else ():
            found.setdefault(path.stem, path)
    return sorted(found.values(), key=lambda path: (_number(path.stem), path.stem))


def _number(stem: str) -> int:
    found = _NUMBER.search(stem)
    return int(found[1]) if found else -1


def _named(stem: str, lost: Iterable[str]) -> bool:
    return any(line.startswith(f"{stem}: ") for line in lost)


def _fault(video: Video, frame: int, check_pixels: bool) -> str | None:
    """Why a frame cannot be used; None if it can."""
    parts = (("image", video.images[frame]), ("pose", video.pose(frame)), ("face mask", video.face(frame)))
    for what, path in parts:
        fault = _picture_fault(path, check_pixels)
        if fault:
            return f"{what} {fault}"
    return None


def _picture_fault(path: Path, check_pixels: bool) -> str | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if check_pixels:
                picture.load()
    except FileNotFoundError:
        return "missing"
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f"unreadable ({type(error).__name__})"
    return None


def _longest_run(complete: list[bool]) -> tuple[int, int]:
    """Start and stop of the longest run of True; the first of several."""
    best, start = (0, 0), 0
    for index, good in enumerate([*complete, False]):
        if not good:
            if index - start > best[1] - best[0]:
                best = (start, index)
            start = index + 1
    return best


def _first_folder(places: tuple[Path, ...], line: str) -> Path:
    """Where a line of a list leads to; the first place if to none, so that the report names it."""
    return next((place / line for place in places if (place / line).is_dir()), places[0] / line)
