"""What a training set is made with: sizes, choices and thresholds, each with its default.

Layout and sizes: StableAnimator, README "Model Training" @ 020e7f2. The thresholds are this project's own.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ..errors import InputError

SETS = {"rec": (512, 512), "vec": (1024, 576)}
"""Name of an image set -> height and width of its pictures."""

ImageSet = Literal["auto", "rec", "vec"]
Fit = Literal["crop", "stretch"]
Size = Literal["set", "original"]
Who = Literal["only", "largest", "central", "tracked"]
NoFace = Literal["white", "drop"]
Channels = Literal["bgr", "rgb"]


def _option(default: Any, words: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": words, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """How videos become clips. Every attribute is an option of the command, with its help there.

    Shares are 0..1; `min_face` and `second_person` compare heights, `min_sharpness` is the variance of the
    Laplacian of 8-bit grey at the set's size.

    Raises:
        InputError: a choice that does not exist, or a number out of its range.
    """

    image_set: ImageSet = _option("auto", "rec is 512x512, vec 576x1024; auto takes the nearer in aspect")
    fit: Fit = _option("crop", "crop around the person to the set's aspect, or stretch the whole frame")
    size: Size = _option("set", "store pictures at the set's size, or at the video's own")
    fps: float = _option(0.0, "thin the video to so many frames a second; 0 keeps all", 0, 1000)
    max_frames: int = _option(1800, "longest clip; longer takes are divided", 2, 50_000)
    min_frames: int = _option(17, "shortest clip; 16 are trained on, and one is the reference", 2, 50_000)
    bridge: int = _option(2, "leave out so many bad frames in a row without a new clip", 0, 1000)
    person: Who = _option("only", "only drops frames with a second person; the others choose one")
    second_person: float = _option(0.35, "a second person counts from this share of the first's height", 0, 1)
    min_joints: int = _option(8, "body joints of 18 that must be seen inside the picture", 0, 18)
    min_face: float = _option(0.04, "smallest face, as a share of the picture's height; 0 takes all", 0, 1)
    no_face: NoFace = _option("white", "a frame without a face: an all-white mask (official), or drop it")
    min_face_frames: float = _option(0.5, "drop clips with a face in a smaller share of frames", 0, 1)
    min_sharpness: float = _option(10.0, "drop frames whose person is more blurred; 0 takes all", 0, 1e6)
    cut_threshold: float = _option(0.08, "how much of the grey scale a cut moves; 1 sees no cuts", 0, 1)
    face_channels: Channels = _option("bgr", "colours the face detector sees; rgb is the official slip")

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise InputError(_flag(name), f"is {getattr(self, name)!r}", f"choose one of {allowed}")
        for entry in fields(self):
            low, high = entry.metadata["low"], entry.metadata["high"]
            value = getattr(self, entry.name)
            if low is not None and not low <= value <= high:
                raise InputError(_flag(entry.name), f"is {value}", f"use {low:g} to {high:g}")
        if self.max_frames < self.min_frames:
            problem = f"is {self.max_frames}, --min-frames is {self.min_frames}"
            raise InputError("--max-frames", problem, "let it be as large at least")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


_CHOICES = {
    "image_set": ImageSet,
    "fit": Fit,
    "size": Size,
    "person": Who,
    "no_face": NoFace,
    "face_channels": Channels,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each attribute of `Settings`."""
    for entry in fields(Settings):
        choices = get_args(_CHOICES[entry.name]) if entry.name in _CHOICES else None
        parser.add_argument(
            _flag(entry.name),
            dest=entry.name,
            choices=choices,
            type=type(entry.default),
            default=entry.default,
            metavar=None if choices else "N",
            help=f"{entry.metadata['help']} (default: {entry.default})",
        )


def from_options(options: argparse.Namespace) -> Settings:
    """The settings that were given on the command line."""
    return Settings(**{entry.name: getattr(options, entry.name) for entry in fields(Settings)})


def _flag(name: str) -> str:
    return "--set" if name == "image_set" else "--" + name.replace("_", "-")
