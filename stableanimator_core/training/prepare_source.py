"""Videos and folders of pictures as streams of frames; only one frame is held at a time.

Videos are read by PyAV, which ComfyUI has. Frames come upright (the rotation a phone notes is applied) and
with square pixels. Axes: H W pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ..errors import InputError
from ..rgb import rgb_image

if TYPE_CHECKING:
    from av import VideoFrame

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif"),
)
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class SourceFrame(NamedTuple):
    """One frame.

    Attributes:
        number: its place in the source, from 0, before any thinning.
        image: RGB uint8 [H W 3]; None if it cannot be read, or is too small for the detectors.
    """

    number: int
    image: np.ndarray | None


@dataclass(frozen=True)
class Source:
    """A video file, or a folder whose pictures are the frames.

    Attributes:
        path: absolute.
    """

    path: Path

    @property
    def key(self) -> str:
        """What the manifest knows it by."""
        return self.path.as_posix()

    def fingerprint(self) -> dict[str, int]:
        """Bytes and time of the last change; of a folder, all of its pictures'."""
        files = pictures_of(self.path) if self.path.is_dir() else [self.path]
        stats = [file.stat() for file in files]
        return {
            "files": len(stats),
            "bytes": sum(stat.st_size for stat in stats),
            "mtime_ns": max(stat.st_mtime_ns for stat in stats),
        }


def find_sources(paths: Sequence[str | Path], out: str | Path) -> list[Source]:
    """The videos at `paths`: files, and what lies in folders and below them, in the order of names.

    A folder that itself holds pictures is one video. Files given by name are taken whatever they end in.

    Args:
        paths: files and folders.
        out: the data set, which is never searched.

    Raises:
        InputError: a path that does not exist, or no video at all.
    """
    found: dict[Path, None] = {}
    closed = Path(out).resolve()
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(str(path), "does not exist", "name existing videos or folders")
        found |= dict.fromkeys([path.resolve()] if path.is_file() else _below(path.resolve(), closed))
    if not found:
        endings = ", ".join(VIDEO_ENDINGS + PICTURE_ENDINGS)
        raise InputError("the folders given", "hold no videos or pictures", f"looked for {endings}")
    return [Source(path) for path in found]


def pictures_of(folder: Path) -> list[Path]:
    """The pictures that lie in `folder`, in the order of the numbers in their names."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS and path.is_file()]
    return sorted(files, key=lambda path: _natural(path.name))


def read_frames(source: Source, fps: float = 0.0, start: int = 0) -> Iterator[SourceFrame]:
    """The frames from number `start` on.

    Args:
        source: where from.
        fps: for videos, keep so many frames a second; 0, or more than there are, keeps all. Pictures have no
            time and are all kept.
        start: frames before it are passed over.

    Raises:
        InputError: the video cannot be opened, its frames are too small, or it is damaged further on (after
            the good frames).
    """
    if source.path.is_dir():
        yield from _read_pictures(source.path, start)
    else:
        yield from _read_video(source.path, fps, start)


def upright(image: np.ndarray, degrees: float) -> np.ndarray:
    """The picture [H W 3] turned counter-clockwise by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(image, round(degrees / 90) % 4))


def _below(folder: Path, closed: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and Path(place, n) != closed)
        if Path(place) == closed:
            folders[:] = []
            continue
        if pictures_of(Path(place)):
            yield Path(place)
        for name in sorted(files, key=_natural):
            if Path(name).suffix.lower() in VIDEO_ENDINGS and not name.startswith("."):
                yield Path(place, name).resolve()


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_pictures(folder: Path, start: int) -> Iterator[SourceFrame]:
    for number, path in enumerate(pictures_of(folder)):
        if number < start:
            continue
        try:
            with Image.open(path) as picture:
                image = rgb_image(np.array(picture.convert("RGB")))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all that Pillow raises
            image = None
        yield SourceFrame(number, image)


def _read_video(path: Path, fps: float, start: int) -> Iterator[SourceFrame]:
    try:
        import av
    except ImportError as error:
        remedy = "install it (pip install av), or give folders of pictures"
        raise InputError("PyAV", "is not installed, and videos are read by it", remedy) from error
    number = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(path.name, "holds no pictures", "leave it out")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            keep, shape = _Thinning(fps, stream.average_rate), stream.sample_aspect_ratio
            for number, frame in enumerate(container.decode(stream)):
                if keep(frame, number) and number >= start:
                    yield SourceFrame(number, rgb_image(_pixels(frame, float(shape or 1)), path.name))
    except (av.FFmpegError, OSError) as error:
        where = "cannot be opened" if number < 0 else f"is damaged after frame {number}"
        problem = f"{where} ({getattr(error, 'strerror', None) or error})"
        raise InputError(path.name, problem, "convert or fetch it again, or leave it out") from error
    if number < 0:
        raise InputError(path.name, "holds no frame", "leave it out")


def _pixels(frame: VideoFrame, pixel_aspect: float) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    if abs(pixel_aspect - 1) > 0.01:
        wide = Image.fromarray(image).resize((max(1, round(frame.width * pixel_aspect)), frame.height))
        image = np.array(wide)
    return upright(image, getattr(frame, "rotation", 0))


class _Thinning:
    """Keeps the first frame in each 1/fps of a second, by the frames' own times."""

    def __init__(self, fps: float, own_rate):
        self.fps, self.own_rate = fps, float(own_rate or 0)
        self.begin: float | None = None
        self.last = -1

    def __call__(self, frame: VideoFrame, number: int) -> bool:
        time = frame.time if frame.time is not None else number / (self.own_rate or 25.0)
        if not self.fps:
            return True
        self.begin = time if self.begin is None else self.begin
        slot = int((time - self.begin) * self.fps + 1e-3)  # times are rounded to the container's clock
        if slot <= self.last:
            return False
        self.last = slot
        return True
