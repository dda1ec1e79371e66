"""DWPose: pictures in, people with body, hands and face out.

Source: Yang et al., DWPose, arXiv:2307.15880, with the pre- and post-processing of StableAnimator's DWPose
folder (github.com/Francis-Rings/StableAnimator), which the skeletons of its training data came from.
Differences: people (and frames) share a network call where the file allows; a frame without a person gives no
person unless asked for the official way, which takes the whole picture for one.
Axes: f frames, H W pixels, p persons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..onnx_sessions import open_session, providers_in_use
from ..rgb import rgb_frames, rgb_image
from .dwpose_detector import PersonDetector
from .dwpose_joints import JointEstimator, with_neck
from .people import Clip, Frame, Person

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Channels = Literal["rgb", "bgr"]
NoPerson = Literal["empty", "official"]
_PARTS = {
    "body": slice(0, 18),
    "face": slice(24, 92),
    "left_hand": slice(92, 113),
    "right_hand": slice(113, 134),
}


class DWPose:
    """Person detector and pose estimator together.

    Args:
        detector: open session of yolox_l.onnx.
        estimator: open session of dw-ll_ucoco_384.onnx.
        channels: order in which the *detector* sees the colours. "rgb" is what the official extraction gives
            it, "bgr" what YOLOX was trained on. The pose network always sees RGB.
        no_person: what a frame without a detection gives: "empty", nobody; "official", a person guessed from
            the whole picture.
        people_per_call: how many persons at most go through the pose network together.
        frames_per_call: how many frames are worked on together; more is faster on a GPU, and coarser to
            cancel.
        sources: names of the two files, for errors.

    Raises:
        WeightsError: a session is not such a network.
        InputError: unknown `channels` or `no_person`.
    """

    def __init__(
        self,
        detector: InferenceSession,
        estimator: InferenceSession,
        *,
        channels: Channels = "rgb",
        no_person: NoPerson = "empty",
        people_per_call: int = 8,
        frames_per_call: int = 1,
        sources: tuple[str, str] = ("the person detector", "the pose estimator"),
    ):
        _check_choice("channel order", channels, ("rgb", "bgr"))
        _check_choice("no-person policy", no_person, ("empty", "official"))
        self.detector = PersonDetector(detector, sources[0])
        self.estimator = JointEstimator(estimator, sources[1], people_per_call)
        self.channels, self.no_person = channels, no_person
        self.frames_per_call = max(1, frames_per_call)

    @property
    def providers(self) -> tuple[str, str]:
        """Where detector and estimator really run, in onnxruntime's words."""
        return providers_in_use(self.detector.session)[0], providers_in_use(self.estimator.session)[0]

    def detect_people(self, image: np.ndarray | Tensor) -> tuple[Person, ...]:
        """The people of one picture, best detection first.

        Args:
            image: RGB [H W 3], uint8 0..255 or floating point 0..1.

        Raises:
            InputError: not such a picture.
        """
        return self._frames(rgb_image(image)[None])[0].people

    def extract_poses(
        self, frames: np.ndarray | Tensor, on_frame: Callable[[int], None] | None = None
    ) -> Clip:
        """The people of every frame.

        Args:
            frames: RGB [f H W 3], uint8 0..255 or floating point 0..1.
            on_frame: called with each frame's number when it is done; may raise to stop.

        Raises:
            InputError: not such frames.
        """
        checked = rgb_frames(frames, "the video frames")
        clip: Clip = []
        for start in range(0, len(checked), self.frames_per_call):
            done = self._frames(checked[start : start + self.frames_per_call])
            clip += done
            for index in range(start, start + len(done)):
                if on_frame is not None:
                    on_frame(index)
        return clip

    def _frames(self, frames: np.ndarray) -> Clip:
        height, width = frames.shape[1:3]
        seen = frames if self.channels == "rgb" else np.ascontiguousarray(frames[..., ::-1])
        boxes = self.detector.find(seen)
        if self.no_person == "official":
            whole = np.array([[0, 0, width, height]], dtype=np.float64)
            boxes = [found if len(found) else whole for found in boxes]
        owners = [index for index, found in enumerate(boxes) for _ in found]
        placed = self.estimator.estimate(
            [frames[owner] for owner in owners], [box for found in boxes for box in found]
        )
        people = to_people(*with_neck(*placed), height, width)
        return [
            Frame(
                tuple(person for person, owner in zip(people, owners, strict=True) if owner == index),
                width,
                height,
            )
            for index in range(len(frames))
        ]


def open_dwpose(
    detector: str | Path,
    estimator: str | Path,
    *,
    providers: str | Sequence[str] = "auto",
    channels: Channels = "rgb",
    no_person: NoPerson = "empty",
    frames_per_call: int = 1,
) -> DWPose:
    """DWPose from its two files; see `DWPose` and `open_session` for the arguments and errors."""
    return DWPose(
        open_session(detector, providers),
        open_session(estimator, providers),
        channels=channels,
        no_person=no_person,
        frames_per_call=frames_per_call,
        sources=(str(detector), str(estimator)),
    )


def to_people(joints: np.ndarray, scores: np.ndarray, height: int, width: int) -> list[Person]:
    """Points [p 134 2] in pixels and scores [p 134] of `with_neck` as people; the feet are left out."""
    fractions = joints / np.array([width, height], dtype=np.float64)
    return [_person(points, marks) for points, marks in zip(fractions, scores, strict=True)]


def _person(points: np.ndarray, scores: np.ndarray) -> Person:
    person = Person()
    for name, rows in _PARTS.items():
        person = person.with_part(name, points[rows], scores[rows])
    return person


def _check_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"the {what}", f"is {value!r}", f"choose one of {', '.join(allowed)}")
