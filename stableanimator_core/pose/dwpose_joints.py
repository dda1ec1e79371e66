"""DWPose key points around its ONNX network: crops in, 133 COCO-WholeBody points out, then OpenPose order.

Sources: Yang et al., DWPose, arXiv:2307.15880; Li et al., SimCC, arXiv:2107.03332; numbers and order as in
StableAnimator's DWPose/dwpose_utils/onnxpose.py and wholebody.py (github.com/Francis-Rings/StableAnimator).
Difference: the crops of several persons go through the network together where its batch axis allows.
Axes: p persons, h w input of the network (384, 288), k key points (133, with the neck 134).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import WeightsError
from ..onnx_sessions import OnnxHeader, run, tensor_type
from .dwpose_warp import warp_affine
from .people import VISIBLE

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NUM_JOINTS = 133
PADDING = 1.25
_MEAN = np.array([123.675, 116.28, 103.53])
_STD = np.array([58.395, 57.12, 57.375])
# COCO body points (neck put in at 17) in OpenPose order; what follows, feet, face and hands, keeps its place.
_OPENPOSE_ORDER = [0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
_SHOULDERS = [5, 6]


class JointEstimator:
    """Finds the key points of a person in a box.

    Args:
        session: an open dw-ll_ucoco_384.onnx.
        source: file name for errors.
        people_per_call: how many crops at most go through the network together.

    Raises:
        WeightsError: a network of other inputs or outputs.
    """

    def __init__(
        self,
        session: InferenceSession | OnnxHeader,
        source: str = "the pose estimator",
        people_per_call: int = 8,
    ):
        self.session, self.source = session, source
        self.dtype = tensor_type(session, source)
        shape = list(session.get_inputs()[0].shape)
        self.size = self._checked_size(shape)
        self.per_call = 1 if isinstance(shape[0], int) else max(1, people_per_call)

    def _checked_size(self, shape: list) -> tuple[int, int]:
        outputs = [list(output.shape) for output in self.session.get_outputs()]
        fits = len(self.session.get_inputs()) == 1 and len(shape) == 4 and shape[1] == 3 and len(outputs) == 2
        fits = fits and all(isinstance(side, int) and side > 0 for side in shape[2:])
        fits = fits and all(
            _may_be(output, side) for output, side in zip(outputs, (shape[3], shape[2]), strict=True)
        )
        if not fits:
            raise WeightsError(
                self.source,
                f"takes {shape} and gives {outputs}; DWPose takes [n, 3, 384, 288] and "
                "gives [n, 133, 576] and [n, 133, 768]",
                "use dw-ll_ucoco_384.onnx",
            )
        return shape[2], shape[3]

    def estimate(
        self, frames: Sequence[np.ndarray], boxes: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Key points of one person per pair of frame and box.

        Args:
            frames: p pictures, uint8 [H W 3], channels as in training (RGB). The same one may come several
                times.
            boxes: p boxes [4]: left, top, right, bottom in pixels.

        Returns:
            Pixels float64 [p 133 2] (x, y) and raw network scores float32 [p 133], which can exceed 1.
        """
        if not len(boxes):
            return np.zeros((0, NUM_JOINTS, 2)), np.zeros((0, NUM_JOINTS), dtype=np.float32)
        centres, extents = crop_regions(np.stack(boxes), self.size)
        crops = (crop(*region, self.size) for region in zip(frames, centres, extents, strict=True))
        inputs = np.stack([normalise(picture) for picture in crops])
        outputs = [
            self._run(inputs[start : start + self.per_call]) for start in range(0, len(inputs), self.per_call)
        ]
        places, scores = zip(*(decode(*output) for output in outputs), strict=True)
        return to_frame(np.concatenate(places), centres, extents, self.size), np.concatenate(scores)

    def _run(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        along_x, along_y = run(self.session, inputs.astype(self.dtype))
        expected = [(len(inputs), NUM_JOINTS, 2 * side) for side in (self.size[1], self.size[0])]
        if [along_x.shape, along_y.shape] != expected:
            raise WeightsError(
                self.source,
                f"gave {along_x.shape} and {along_y.shape}, not {expected[0]} and {expected[1]}",
                "use dw-ll_ucoco_384.onnx",
            )
        return along_x, along_y


def crop_regions(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centres [p 2] and width, height [p 2] of the crops: the boxes [p 4], padded and brought to the
    input's aspect.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    width, height = ((boxes[:, 2:] - boxes[:, :2]) * PADDING).T
    aspect = size[1] / size[0]
    wide = width > height * aspect
    extents = np.where(wide, [width, width / aspect], [height * aspect, height]).T
    return centres, extents


def crop(frame: np.ndarray, centre: np.ndarray, extent: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The region of the frame [H W 3] as uint8 [h w 3], bilinear, black outside."""
    import cv2

    height, width = size
    source = _three_points(centre, extent[0])
    target = _three_points(np.array([width * 0.5, height * 0.5]), width)
    matrix = cv2.getAffineTransform(source, target)
    return warp_affine(frame, matrix, height, width)


def normalise(picture: np.ndarray) -> np.ndarray:
    """uint8 [h w 3] to float32 [3 h w] with ImageNet's mean and deviation."""
    return ((picture - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)


def decode(along_x: np.ndarray, along_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SimCC outputs [p k 2w] and [p k 2h] to places [p k 2] in input pixels and scores [p k].

    The first of equal maxima counts. Where the smaller maximum is not positive the place is (-0.5, -0.5).
    """
    scores = np.minimum(along_x.max(axis=2), along_y.max(axis=2))
    bins = np.stack([along_x.argmax(axis=2), along_y.argmax(axis=2)], axis=-1).astype(np.float64)
    bins[~(scores > 0)] = -1
    return bins / 2, scores


def to_frame(
    places: np.ndarray, centres: np.ndarray, extents: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Places [p k 2] in input pixels to pixels of the frame."""
    side = np.array([size[1], size[0]])
    return places / side * extents[:, None] + centres[:, None] - extents[:, None] / 2


def with_neck(joints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """133 COCO-WholeBody points to 134 with a neck; the first 18 in OpenPose order.

    Neck: midpoint of the shoulders, score 1 if both exceed 0.3, else 0. After the body: 6 foot, 68 face, 21
    left-hand and 21 right-hand points.

    Args:
        joints: [p 133 2].
        scores: [p 133].

    Returns:
        float64 [p 134 2] and [p 134].
    """
    joints, scores = joints.astype(np.float64), scores.astype(np.float64)
    neck = joints[:, _SHOULDERS].mean(axis=1, keepdims=True)
    neck_score = (scores[:, _SHOULDERS] > VISIBLE).all(axis=1, keepdims=True).astype(np.float64)
    body = np.concatenate([joints[:, :17], neck], axis=1)[:, _OPENPOSE_ORDER]
    body_scores = np.concatenate([scores[:, :17], neck_score], axis=1)[:, _OPENPOSE_ORDER]
    return np.concatenate([body, joints[:, 17:]], axis=1), np.concatenate(
        [body_scores, scores[:, 17:]], axis=1
    )


def _three_points(centre: np.ndarray, width: float) -> np.ndarray:
    """Centre, the point half a width above it, and the point half a width left of that, float32 [3 2]."""
    points = np.zeros((3, 2), dtype=np.float32)
    points[0] = centre
    points[1] = centre + np.array([0.0, width * -0.5])
    up = points[0] - points[1]
    points[2] = points[1] + np.array([-up[1], up[0]], dtype=np.float32)
    return points


def _may_be(output: list, side: int) -> bool:
    known = [
        len(output) == 3,
        len(output) < 2 or output[1] in (NUM_JOINTS, None) or isinstance(output[1], str),
    ]
    return all(known) and (not isinstance(output[2], int) or output[2] == 2 * side)
