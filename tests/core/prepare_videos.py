"""Small lossless videos, and detectors that can be planned, for the tests of the training set's making.

The stand-ins see a person where red is bright, a second one where green is, the same standing figure in
every picture, and a face in every bright cell of 32x32 pixels (of 640).
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import figure_standin
import numpy as np
import standins
from PIL import Image, ImageFilter

from stableanimator_core.face.analysis import FaceDetector
from stableanimator_core.pose.dwpose import open_dwpose
from stableanimator_core.training.prepare_settings import Settings
from stableanimator_core.training.prepare_shot import Networks

FACE = (255, 120, 255)  # bright enough for the face detector, and without green for one person only
SIDE = 320
TWO_PEOPLE = ((40, 60, 280, 600), (360, 60, 600, 600))


def write_models(folder: Path) -> Path:
    """The three detectors under their official names; the folder."""
    figure_standin.write_detectors(folder)
    standins.yolox(folder / "yolox_l.onnx", (standins.PERSON, TWO_PEOPLE[1]))
    standins.scrfd(folder / "scrfd_10g_bnkps.onnx")
    return folder


def open_models(folder: Path) -> Networks:
    dwpose = open_dwpose(folder / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx", providers="cpu")
    return Networks(dwpose, FaceDetector(folder / "scrfd_10g_bnkps.onnx", "cpu"))


def scene(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), face: bool = True, person: bool = True):
    """A dark textured picture (height, width), with a bright face of 64 pixels, a person without one, or
    nobody.
    """
    height, width = size
    image = np.random.RandomState(seed).randint(0, 100, (height, width, 3)).astype(np.uint8)
    row, column = height // 5, width // 2 - 32
    if person and face:
        image[row : row + 64, column : column + 64] = FACE
    elif person:
        image[row : row + 3, column : column + 3] = FACE
    return image


def other_scene() -> np.ndarray:
    """A place of its own: all brighter, so that nothing stays as it was."""
    image = scene(seed=9)
    dark = image.max(axis=-1) < 120
    image[dark] = image[dark] // 4 + np.array([10, 95, 95], dtype=np.uint8)
    return image


def two_people() -> np.ndarray:
    image = scene()
    image[10:13, 10:13] = (0, 255, 0)
    return image


def blurred() -> np.ndarray:
    return np.asarray(Image.fromarray(scene()).filter(ImageFilter.GaussianBlur(8)))


def write_video(path: Path, frames: list[np.ndarray], rate: int = 8, codec: str = "ffv1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.time_base = Fraction(1, rate)
        if codec != "ffv1":
            stream.bit_rate = 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def small(**changes) -> Settings:
    """Settings for short tests; pictures stay as small as they are."""
    defaults = {"size": "original", "min_frames": 3, "bridge": 0, "min_sharpness": 0.0, "cut_threshold": 1.0}
    return Settings(**{**defaults, **changes})


def dropped(folder: Path) -> dict[str, list[list[int]]]:
    """Reason -> ranges, of a set of one video."""
    (entry,) = json.loads((folder / "report.json").read_text())["videos"].values()
    return {reason: what["ranges"] for reason, what in entry["dropped"].items()}


def tree(folder: Path) -> dict[str, bytes]:
    """What a trainer reads, and poses."""
    files = [path for name in ("rec", "vec") for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Interrupting:
    """A detector of people that is interrupted at its n-th frame, and counts."""

    def __init__(self, dwpose, stop: int | None = None):
        self.dwpose, self.stop, self.calls = dwpose, stop, 0

    def detect_people(self, image):
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise KeyboardInterrupt
        return self.dwpose.detect_people(image)
