"""Faces in a picture: box, score and five landmarks, by insightface's SCRFD given an explicit ONNX file.

Source: Guo et al., SCRFD, arXiv:2105.04714, through insightface 2 (MIT); nothing is ever downloaded.
The sizes tried one after the other, 640 down to 192, are those other ComfyUI packs try: a face that fills the
picture is too large for a detector at 640.
Axes: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from ..errors import InputError, NoFaceError, WeightsError
from ..onnx_sessions import OnnxHeader, open_session, providers_in_use, tensor_type
from ..rgb import rgb_image

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Corners = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; the detector's own, so not clipped to the picture."""

Channels = Literal["bgr", "rgb"]
SIZES = tuple(range(640, 191, -64))
_DETECTOR_OUTPUTS = (9, 15)  # with landmarks, at three or five strides
_WITHOUT_LANDMARKS = (6, 10)


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a picture.

    Attributes:
        corners: left, top, right, bottom in pixels.
        score: of the detector, 0..1.
        landmarks: float32 [5 2], pixels: the eye, the other eye (from left to right in the picture), nose,
        and the
            corners of the mouth.
    """

    corners: Corners
    score: float
    landmarks: np.ndarray

    @property
    def area(self) -> float:
        left, top, right, bottom = self.corners
        return max(0.0, right - left) * max(0.0, bottom - top)

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.corners
        return (left + right) / 2, (top + bottom) / 2


class FaceDetector:
    """SCRFD on an ONNX file.

    Args:
        path: scrfd_10g_bnkps.onnx or another SCRFD with landmarks.
        providers: see `onnx_sessions.choose_providers`.
        threshold: faces of a lower score are not seen.

    Raises:
        WeightsError: the file is missing, damaged or another network.
    """

    def __init__(self, path: str | Path, providers: str | Sequence[str] = "auto", threshold: float = 0.5):
        self.path, self.threshold = Path(path), threshold
        self.session = open_session(path, providers)
        check_detector(self.session, str(path))
        from insightface.model_zoo.scrfd import SCRFD

        self._scrfd = SCRFD(str(path), self.session, static_shape_sessions=False)

    @property
    def provider(self) -> str:
        """What the detector really runs on."""
        return providers_in_use(self.session)[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sizes tried one after the other; a file of fixed size has one."""
        side = self.session.get_inputs()[0].shape[3]
        return (side,) if isinstance(side, int) else SIZES

    def find_faces(self, image: np.ndarray | Tensor, channels: Channels = "bgr") -> list[Face]:
        """The faces of a picture, best first; an empty list if there is none.

        Args:
            image: RGB [H W 3], uint8 0..255 or floating point 0..1.
            channels: "bgr" shows the detector the colours as it was trained; "rgb" swaps red and blue, as
                StableAnimator's scripts do.

        Raises:
            InputError: not such a picture.
        """
        pixels = for_insightface(rgb_image(image), channels)
        for size in self.sizes:
            faces = self._detected(pixels, size)
            if faces:
                return faces
        return []

    def _detected(self, pixels: np.ndarray, size: int) -> list[Face]:
        boxes, landmarks = self._scrfd.detect(pixels, input_size=(size, size), det_thresh=self.threshold)
        if landmarks is None:
            return []
        return [
            Face((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(box[4]), points)
            for box, points in zip(boxes, landmarks.astype(np.float32), strict=True)
            if np.isfinite(box).all() and np.isfinite(points).all()
        ]


def choose_face(faces: Sequence[Face], height: int, width: int, choice: str | int = "largest") -> Face:
    """One of several faces.

    Args:
        faces: what was found.
        height: of the picture in pixels.
        width: likewise.
        choice: "largest" (the official rule), "central", or a number: faces counted from left to right,
            from 0.

    Raises:
        NoFaceError: no faces, or fewer than the number asked for.
        InputError: an unknown choice.
    """
    if not faces:
        raise NoFaceError(
            "the picture", "shows no face", "use a clearer or larger portrait, or give a face box"
        )
    if choice == "largest":
        return max(faces, key=lambda face: face.area)
    if choice == "central":
        return min(faces, key=lambda face: np.hypot(face.centre[0] - width / 2, face.centre[1] - height / 2))
    if not isinstance(choice, int):
        raise InputError("the face choice", f"is {choice!r}", 'choose "largest", "central" or a number')
    if not 0 <= choice < len(faces):
        number = f"{len(faces)} face{'s' if len(faces) > 1 else ''}"
        raise NoFaceError(
            "the picture", f"has {number}, number {choice} was asked for", "count from 0, left to right"
        )
    return sorted(faces, key=lambda face: face.centre[0])[choice]


def for_insightface(image: np.ndarray, channels: Channels) -> np.ndarray:
    """An RGB picture [H W 3] as insightface shall get it; it takes what it gets for BGR.

    Raises:
        InputError: unknown `channels`.
    """
    if channels not in ("bgr", "rgb"):
        raise InputError("the channel order", f"is {channels!r}", 'choose "bgr" or "rgb"')
    return np.ascontiguousarray(image[..., ::-1]) if channels == "bgr" else image


def check_detector(session: InferenceSession | OnnxHeader, source: str) -> None:
    """Raise a WeightsError if the network is no SCRFD with landmarks."""
    tensor_type(session, source, ("float32",))
    shape = list(session.get_inputs()[0].shape)
    outputs = [list(output.shape) for output in session.get_outputs()]
    square = len(shape) == 4 and shape[1] == 3 and isinstance(shape[2], int) == isinstance(shape[3], int)
    if square and len(outputs) in _DETECTOR_OUTPUTS:
        return
    if len(outputs) in _WITHOUT_LANDMARKS:
        problem = "is a face detector without landmarks, which aligning a face needs"
    else:
        problem = f"takes {shape} and gives {len(outputs)} outputs; SCRFD with landmarks gives 9"
    raise WeightsError(source, problem, "use scrfd_10g_bnkps.onnx of antelopev2")
