"""From portraits to the identity: 512 numbers of an ArcFace network, not normalised.

Sources: Deng et al., ArcFace, arXiv:1801.07698, through insightface 2 (MIT) on an explicit ONNX file, or the
same network in torch; what StableAnimator's inference scripts do with it (largest face, raw vector, swapped
channels).
Differences: "no face" is an error unless asked otherwise; several portraits are averaged; the choice of face.
Axes: H W pixels, e identity embedding (512), n crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, NoFaceError, WeightsError
from ..rgb import rgb_image
from .analysis import Channels, Corners, Face, FaceDetector, choose_face, for_insightface
from .recognisers import FACE_SIZE, WIDTH, Recogniser

NoFace = Literal["error", "without identity", "official zeros"]
_POLICIES = ("error", "without identity", "official zeros")
_LOOK_AROUND = 0.5  # of the user's box, on each side, for the landmarks in it


@dataclass(frozen=True, eq=False)
class FaceIdentity:
    """Who the portraits show.

    Attributes:
        identity: float32 [e], not normalised; None if the policy is to go on without one.
        corners: left, top, right, bottom of the first face in pixels; None where no face was found.
        crop: that face as the network saw it, RGB uint8 [112 112 3]; black where no face was found.
        warnings: what the user must be told.
        family: which model's recogniser gave it, where the caller knows and says so.
    """

    identity: Tensor | None
    corners: Corners | None
    crop: np.ndarray
    warnings: tuple[str, ...] = field(default=())
    family: str = ""


def embed_face(
    images: Sequence[np.ndarray | Tensor],
    recogniser: Recogniser,
    detector: FaceDetector | None = None,
    *,
    channels: Channels = "bgr",
    choice: str | int = "largest",
    corners: Corners | None = None,
    no_face: NoFace = "error",
) -> FaceIdentity:
    """The identity of the person in one or several portraits.

    Args:
        images: RGB pictures [H W 3] of the same person, uint8 0..255 or floating point 0..1; sizes may
            differ.
        recogniser: the ArcFace network.
        detector: finds the face; may be left out if `corners` is given, then the face is not aligned.
        channels: "bgr", colours as the networks were trained; "rgb", red and blue swapped as in
            StableAnimator's scripts.
        choice: which face of several, see `analysis.choose_face`.
        corners: the user's box (left, top, right, bottom, pixels), the same in every picture, instead of
            `choice`. The landmarks are looked for in and around it; if there are none, the box is used as it
            is.
        no_face: where no picture shows a face: "error"; "without identity", no vector; "official zeros", a
            vector of zeros, with which the official code goes on in silence.

    Returns:
        The identity; the mean vector of the pictures that show a face.

    Raises:
        NoFaceError: no face, under the policy "error" (there already if one of several pictures lacks one).
        InputError: not pictures, a box outside the picture, or an unknown choice.
    """
    _check_request(images, detector, corners, no_face)
    crops, boxes, warnings = _find_all(images, detector, channels, choice, corners, no_face)
    if not crops:
        return _nobody(no_face, warnings)
    identity = _checked(recogniser.embed(np.stack(crops)).mean(dim=0))
    return FaceIdentity(identity, boxes[0], for_insightface(crops[0], channels).copy(), tuple(warnings))


def corners_of_mask(mask: np.ndarray | Tensor) -> Corners:
    """The box around the painted part (above 0.5) of a mask [H W], for `embed_face`.

    Raises:
        InputError: not a mask, or nothing is painted.
    """
    values = np.asarray(mask)
    if values.ndim != 2:
        raise InputError(
            "the face mask", f"has the shape {list(values.shape)}", "give one mask [height, width]"
        )
    rows, columns = np.nonzero(values > 0.5)
    if not len(rows):
        raise InputError("the face mask", "is empty", "paint over the face, or leave the mask out")
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def align(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face [112 112 3] with its five landmarks [5 2] where ArcFace expects them; channels as they
    come.
    """
    from insightface.utils import face_align

    return face_align.norm_crop(pixels, landmarks, FACE_SIZE)


def _find_all(
    images: Sequence[np.ndarray | Tensor],
    detector: FaceDetector | None,
    channels: Channels,
    choice: str | int,
    corners: Corners | None,
    no_face: NoFace,
) -> tuple[list[np.ndarray], list[Corners], list[str]]:
    """Crops and boxes of the pictures that show a face, and warnings; see `embed_face`."""
    crops: list[np.ndarray] = []
    boxes: list[Corners] = []
    warnings: list[str] = []
    for number, image in enumerate(images):
        what = "the portrait" if len(images) == 1 else f"portrait {number}"
        pixels = for_insightface(rgb_image(image, what), channels)
        try:
            crop, box, warning = _face_crop(pixels, detector, choice, corners, what)
        except NoFaceError as error:
            if no_face == "error":
                raise
            warnings.append(str(error))
            continue
        crops.append(crop)
        boxes.append(box)
        warnings += [warning] if warning else []
    return crops, boxes, warnings


def _face_crop(
    pixels: np.ndarray, detector: FaceDetector | None, choice: str | int, corners: Corners | None, what: str
) -> tuple[np.ndarray, Corners, str]:
    """Aligned crop, its box, and a warning or an empty text. `pixels` are in insightface's order."""
    height, width = pixels.shape[:2]
    if corners is None:
        if detector is None:
            raise InputError("the face detector", "is missing", "give it, or give a face box")
        faces = detector.find_faces(pixels, "rgb")  # the channels are in order already
        if not faces:
            raise NoFaceError(
                what,
                f"shows no face the detector can see (tried at {', '.join(map(str, detector.sizes))} pixels)",
                "use a clearer or larger portrait, or give a face box",
            )
        face = choose_face(faces, height, width, choice)
        return align(pixels, face.landmarks), face.corners, ""
    box = _clipped(corners, height, width, what)
    face = _face_in(pixels, detector, box)
    if face is None:
        return squared(pixels, box), box, f"{what}: no landmarks in the given box; the face is not aligned"
    return align(pixels, face.landmarks), box, ""


def _face_in(pixels: np.ndarray, detector: FaceDetector | None, box: Corners) -> Face | None:
    """The face nearest to the middle of the box among those whose centre lies in it."""
    if detector is None:
        return None
    left, top, right, bottom = box
    across, down = (right - left) * _LOOK_AROUND, (bottom - top) * _LOOK_AROUND
    x0, y0 = max(0, int(left - across)), max(0, int(top - down))
    around = pixels[y0 : int(bottom + down) + 1, x0 : int(right + across) + 1]
    if min(around.shape[:2]) < FACE_SIZE // 7:
        return None
    middle = ((left + right) / 2, (top + bottom) / 2)
    inside: list[tuple[float, Face]] = []
    for face in detector.find_faces(around, "rgb"):
        x, y = face.centre[0] + x0, face.centre[1] + y0
        if left <= x <= right and top <= y <= bottom:
            moved = Face(face.corners, face.score, face.landmarks + np.array([x0, y0], dtype=np.float32))
            inside.append((float(np.hypot(x - middle[0], y - middle[1])), moved))
    return min(inside, key=lambda pair: pair[0])[1] if inside else None


def squared(pixels: np.ndarray, box: Corners) -> np.ndarray:
    """The box, widened to a square and black outside the picture, at 112x112."""
    import cv2

    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    scale = FACE_SIZE / side
    x0, y0 = (left + right - side) / 2, (top + bottom - side) / 2
    matrix = np.array([[scale, 0, (0.5 - x0) * scale - 0.5], [0, scale, (0.5 - y0) * scale - 0.5]])
    return cv2.warpAffine(pixels, matrix, (FACE_SIZE, FACE_SIZE))


def _clipped(corners: Corners, height: int, width: int, what: str) -> Corners:
    left, top, right, bottom = corners
    clipped = max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
    if not (np.isfinite(corners).all() and clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1):
        raise InputError(
            "the face box",
            f"({left:g}, {top:g}, {right:g}, {bottom:g}) lies outside {what}, which is {width}x{height}",
            "give left, top, right, bottom in pixels",
        )
    return clipped


def _nobody(no_face: NoFace, warnings: list[str]) -> FaceIdentity:
    if no_face == "official zeros":
        identity, said = (
            torch.zeros(WIDTH),
            "NO FACE FOUND: going on with an identity of zeros, as the official code",
        )
    else:
        identity, said = None, "NO FACE FOUND: going on without an identity; the result will be somebody else"
    black = np.zeros((FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
    return FaceIdentity(identity, None, black, (said, *warnings))


def _checked(identity: Tensor) -> Tensor:
    if identity.shape != (WIDTH,) or not torch.isfinite(identity).all():
        raise WeightsError(
            "the face recogniser",
            f"gave {list(identity.shape)} numbers, or some that are not finite",
            "use glintr100",
        )
    return identity


def _check_request(
    images: Sequence, detector: FaceDetector | None, corners: Corners | None, no_face: str
) -> None:
    if not len(images):
        raise InputError("the portraits", "are none", "give at least one picture")
    if no_face not in _POLICIES:
        raise InputError("the no-face policy", f"is {no_face!r}", f"choose one of {', '.join(_POLICIES)}")
    if detector is None and corners is None:
        raise InputError("the face detector", "is missing", "give it, or give a face box")
