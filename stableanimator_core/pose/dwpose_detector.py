"""YOLOX person detector around its ONNX network: letterbox in, boxes out.

Source: Ge et al., YOLOX, arXiv:2107.08430; numbers and order as in StableAnimator's
DWPose/dwpose_utils/onnxdet.py (github.com/Francis-Rings/StableAnimator). Differences: only the class "person"
is ever looked at, which gives the same boxes, and boxes that are not finite are dropped.
Axes: S side of the square input, n anchors (S²/64 + S²/256 + S²/1024), p persons, f frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import WeightsError
from ..onnx_sessions import OnnxHeader, run, tensor_type

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT_SIZE = 640
GREY = 114
CANDIDATE_SCORE = 0.1  # what takes part in the suppression
PERSON_SCORE = 0.3  # what is a person afterwards
OVERLAP = 0.45
_STRIDES = (8, 16, 32)
_PERSON = 5  # column of the first class, after x, y, log w, log h and objectness


class PersonDetector:
    """Finds persons in RGB frames.

    Args:
        session: an open yolox_l.onnx (or another YOLOX without built-in suppression).
        source: file name for errors.

    Raises:
        WeightsError: a network of other inputs or outputs.
    """

    def __init__(self, session: InferenceSession | OnnxHeader, source: str = "the person detector"):
        self.session, self.source = session, source
        self.dtype = tensor_type(session, source)
        self.batched, self.size = self._check_shapes()

    def _check_shapes(self) -> tuple[bool, tuple[int, int]]:
        shape = list(self.session.get_inputs()[0].shape)
        outputs = [list(output.shape) for output in self.session.get_outputs()]
        sides = tuple(side if isinstance(side, int) else INPUT_SIZE for side in shape[2:])
        if not (_takes_pictures(shape) and len(outputs) == 1 and _gives_anchors(outputs[0], sides)):
            raise WeightsError(
                self.source,
                f"takes {shape} and gives {outputs}; a YOLOX detector takes [1, 3, 640, 640] and gives "
                "[1, 8400, 85]",
                "use yolox_l.onnx of DWPose",
            )
        return not isinstance(shape[0], int), (sides[0], sides[1])

    def find(self, frames: np.ndarray) -> list[np.ndarray]:
        """Boxes of the persons of each frame, best first.

        Args:
            frames: uint8 [f H W 3], channels in the order the network shall see.

        Returns:
            Per frame float64 [p 4]: left, top, right, bottom in pixels, not clipped to the frame; p may be 0.
        """
        inputs, ratio = letterbox(frames, self.size)
        calls = [inputs] if self.batched else [item[None] for item in inputs]
        raw = np.concatenate([self._run(call) for call in calls])
        return [person_boxes(output, self.size, ratio) for output in raw]

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        raw = run(self.session, inputs.astype(self.dtype))[0]
        if raw.ndim != 3 or not _gives_anchors(list(raw.shape), self.size):
            raise WeightsError(
                self.source, f"gave {list(raw.shape)}, not [1, 8400, 85]", "use yolox_l.onnx of DWPose"
            )
        return raw


def num_anchors(height: int, width: int) -> int:
    """Rows of the raw output for an input of this size."""
    return sum((height // stride) * (width // stride) for stride in _STRIDES)


def letterbox(frames: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Frames [f H W 3] scaled into the top left of a grey rectangle: float32 [f 3 h w] 0..255, and the
    scale.
    """
    import cv2

    ratio = min(size[0] / frames.shape[1], size[1] / frames.shape[2])
    height, width = int(frames.shape[1] * ratio), int(frames.shape[2] * ratio)
    padded = np.full((len(frames), *size, 3), GREY, dtype=np.uint8)
    for target, frame in zip(padded, frames, strict=True):
        target[:height, :width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(padded.transpose(0, 3, 1, 2), dtype=np.float32), ratio


def person_boxes(raw: np.ndarray, size: tuple[int, int], ratio: float) -> np.ndarray:
    """Boxes [p 4] in pixels of the frame from one raw output [n 5+classes]; see `PersonDetector.find`."""
    cells, strides = _grid(*size)
    with np.errstate(over="ignore"):
        centre = ((raw[:, :2] + cells) * strides).astype(np.float32)
        extent = (np.exp(raw[:, 2:4]) * strides).astype(np.float32)
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1) / np.float32(ratio)
    scores = raw[:, 4] * raw[:, _PERSON]
    candidates = (scores > CANDIDATE_SCORE) & np.isfinite(boxes).all(axis=1)
    boxes, scores = boxes[candidates], scores[candidates]
    kept = suppress(boxes, scores)
    return boxes[[index for index in kept if scores[index] > PERSON_SCORE]].astype(np.float64).reshape(-1, 4)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float = OVERLAP) -> list[int]:
    """Indices of the boxes that no better box overlaps by more than `overlap`, falling score.

    A box holds its right and bottom pixels: sides are one longer than the difference of the corners.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    rest = np.argsort(scores, kind="stable")[::-1]
    kept: list[int] = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        width = np.maximum(0, np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1)
        height = np.maximum(0, np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1)
        shared = width * height
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= overlap]
    return kept


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell coordinates [n 2] (x, y) and strides [n 1] of all anchors."""
    cells, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def _takes_pictures(shape: list) -> bool:
    if len(shape) != 4 or not (shape[1] == 3 or not isinstance(shape[1], int)):
        return False
    return all(not isinstance(side, int) or (side > 0 and side % _STRIDES[-1] == 0) for side in shape[2:])


def _gives_anchors(output: list, size: tuple[int, ...]) -> bool:
    """Whether an output of this shape can be a YOLOX head's; axes without a number may be anything."""
    if len(output) != 3 or len(size) != 2:
        return False
    rows, columns = output[1:]
    return (not isinstance(rows, int) or rows == num_anchors(*size)) and not (
        isinstance(columns, int) and columns <= _PERSON
    )
