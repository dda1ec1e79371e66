"""Face crops for the small recognisers: made from a box as Face Embed makes them, then made worse.

The worsening is mild: boxes drawn by hand are a little off, and generated faces are soft.
Axes: b crops, 112x112 pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...face.embed import squared  # a given box without landmarks, as the node crops it
from ...models.iresnet import FACE_SIZE
from .store import FrameStore

_STRETCHED = 0.3  # share of crops in the optimiser's way: the box stretched to a square
_SHIFT, _SCALE = 0.08, 0.15  # of the box's side
_LIGHT, _TINT = 0.15, 0.05
_SOFT = (14, 48)  # sides in pixels that half of the crops are shrunk to and enlarged again
_NOISE = 0.03


def crop_face(frame: np.ndarray, box: np.ndarray, *, stretched: bool = False) -> np.ndarray:
    """uint8 [112 112 3] of a frame [H W 3] and a box (left, top, right, bottom in pixels).

    Args:
        frame: the picture.
        box: the face.
        stretched: the box to a square, as the face optimisation sees it; else widened to a square, as Face Embed.
    """
    import cv2

    left, top, right, bottom = (float(value) for value in box)
    if not stretched:
        return squared(frame, (left, top, right, bottom))
    height, width = frame.shape[:2]
    rows = slice(max(0, int(top)), min(height, max(int(top) + 1, round(bottom))))
    columns = slice(max(0, int(left)), min(width, max(int(left) + 1, round(right))))
    return cv2.resize(frame[rows, columns], (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_LINEAR)


def faces_for_training(store: FrameStore, numbers: np.ndarray, random: np.random.Generator) -> Tensor:
    """Worsened crops of frames that show a face: float32 [b 3 112 112] in [-1, 1]."""
    faces = []
    for number in numbers:
        frame = store.frames[number]
        box = _moved(store.boxes[number], random, frame.shape[0])
        crop = crop_face(frame, box, stretched=random.random() < _STRETCHED)
        faces.append(_worsened(crop, random))
    return to_tensor(np.stack(faces))


def faces_for_evaluation(store: FrameStore, numbers: np.ndarray, soft: int | None = None) -> Tensor:
    """Crops as they are, or shrunk to `soft` pixels and enlarged again: [b 3 112 112] in [-1, 1]."""
    crops = [crop_face(store.frames[number], store.boxes[number]) for number in numbers]
    return to_tensor(np.stack([_softened(crop, soft) if soft else crop for crop in crops]).astype(np.float32))


def to_tensor(faces: np.ndarray) -> Tensor:
    """[b H W 3] in 0..255, RGB, to [b 3 H W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2), dtype=np.float32)) / 127.5 - 1


def _moved(box: np.ndarray, random: np.random.Generator, size: int) -> np.ndarray:
    centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + sides * random.uniform(-_SHIFT, _SHIFT, 2)
    half = sides / 2 * np.exp(random.uniform(-_SCALE, _SCALE) + random.uniform(-_SCALE, _SCALE, 2) / 4)
    corners = np.concatenate([centre - half, centre + half])
    return np.concatenate([np.clip(corners[:2], 0, size - 4), np.clip(corners[2:], 4, size)])


def _worsened(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if random.random() < 0.5:
        crop = _softened(crop, int(random.integers(*_SOFT)))
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    light = np.float32(random.uniform(1 - _LIGHT, 1 + _LIGHT))
    tint = random.uniform(1 - _TINT, 1 + _TINT, 3).astype(np.float32)
    shade = np.float32(random.uniform(-12, 12))
    noise = random.standard_normal(crop.shape, dtype=np.float32) * np.float32(
        255 * _NOISE * random.random() ** 2
    )
    return np.clip(crop * (light * tint) + shade + noise, 0, 255)


def _softened(crop: np.ndarray, side: int) -> np.ndarray:
    import cv2

    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_CUBIC)
