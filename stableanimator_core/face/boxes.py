"""Where the face is in each frame: boxes and masks.

Conventions of StableAnimator's face_mask_extraction.py (github.com/Francis-Rings/StableAnimator): the
detector's boxes, corners truncated to whole pixels and included, filled; no margin unless asked for.
Difference: a frame without a face has no box and an empty mask, which leaves it out; the official script
paints the whole frame.
Axes: f frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..hjb.regions import Box
from ..pose.people import VISIBLE, Frame, Person
from ..rgb import rgb_frames
from .analysis import Channels, Corners, FaceDetector

FaceBoxes = list[list[Box]]
"""Per frame the boxes of its faces, whole pixels inside the frame; none where there is no face."""

MIN_FACE_POINTS = 5
_HEAD = (0, 14, 15, 16, 17)  # nose, eyes and ears of the body
_HEAD_GROWTH = 0.3  # they span less than a face


def boxes_from_detector(
    detector: FaceDetector,
    frames: np.ndarray | Tensor,
    *,
    channels: Channels = "bgr",
    on_frame: Callable[[int], None] | None = None,
) -> FaceBoxes:
    """The boxes of all faces the detector sees, the official convention.

    Args:
        detector: see `FaceDetector`.
        frames: RGB [f H W 3], uint8 0..255 or floating point 0..1.
        channels: see `FaceDetector.find_faces`.
        on_frame: called with each frame's number when it is done; may raise to stop.

    Raises:
        InputError: not such frames.
    """
    result: FaceBoxes = []
    pictures = rgb_frames(frames, "the video frames")
    for index, picture in enumerate(pictures):
        faces = detector.find_faces(picture, channels)
        result.append(_inside([box_of(face.corners) for face in faces], *picture.shape[:2]))
        if on_frame is not None:
            on_frame(index)
    return result


def boxes_from_skeleton(
    frames: Sequence[Frame], height: int, width: int, *, person: int | None = None
) -> FaceBoxes:
    """The boxes around the face points of (aligned) skeletons.

    Only points with a score above 0.3 count, and five of them at least. Without them nose, eyes and ears of
    the body serve, three of them at least, in a box that is 30 % larger on each side.

    Args:
        frames: skeletons, points as fractions of the frame.
        height: of the video in pixels.
        width: likewise.
        person: number of the person in each frame; None takes everybody.
    """
    result: FaceBoxes = []
    for frame in frames:
        people = frame.people if person is None else frame.people[person : person + 1]
        found = (_face_of(one, height, width) for one in people)
        result.append(_inside([box for box in found if box is not None], height, width))
    return result


def boxes_from_masks(masks: np.ndarray | Tensor, *, threshold: float = 1.0, union: bool = False) -> FaceBoxes:
    """The boxes around the painted parts of masks.

    A frame painted all over counts as one without a face: the official script writes that where it saw none.

    Args:
        masks: [f H W] or [H W], 0..1.
        threshold: a pixel is painted from this value on; the official script only knows 1.
        union: one box around everything, as the official script does; else one for each connected part.

    Raises:
        InputError: not masks, or every one is painted all over.
    """
    from scipy import ndimage

    values = masks.numpy(force=True) if isinstance(masks, Tensor) else np.asarray(masks)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise InputError(
            "the face masks", f"have the shape {list(values.shape)}", "give masks [frames, height, width]"
        )
    if not np.isfinite(values).all():
        raise InputError("the face masks", "hold NaN or infinite values", "mend the node that made them")
    painted = values >= threshold
    if painted.all():
        raise InputError(
            "the face masks", "cover every frame completely", "paint only the faces, or leave them out"
        )
    eight_neighbours = np.ones((3, 3))
    result: FaceBoxes = []
    for frame in painted:
        if frame.all():
            result.append([])
            continue
        parts = np.array(frame, dtype=np.int32)
        if not union:
            ndimage.label(frame, structure=eight_neighbours, output=parts)
        slices = [found for found in ndimage.find_objects(parts) if found is not None]
        result.append([Box(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in slices])
    return result


def boxes_to_masks(boxes: FaceBoxes, height: int, width: int) -> Tensor:
    """Filled boxes: float32 [f H W], 1 in a box, 0 elsewhere; all 0 for a frame without one."""
    masks = torch.zeros(len(boxes), height, width)
    for mask, frame in zip(masks, boxes, strict=True):
        for box in _inside(frame, height, width):
            mask[box.top : box.bottom, box.left : box.right] = 1
    return masks


def pad_boxes(boxes: FaceBoxes, fraction: float, height: int, width: int) -> FaceBoxes:
    """Every box grown on each side by `fraction` of its own size (or shrunk by a negative one), inside the
    frame.
    """
    return [_inside([_grown(box, fraction) for box in frame], height, width) for frame in boxes]


def fill_gaps(boxes: FaceBoxes, longest: int) -> FaceBoxes:
    """Boxes for runs of at most `longest` frames without any, in a straight line between their neighbours.

    Faces on both sides of a gap belong together where their centres are nearest; what has no partner is not
    continued. Frames before the first and after the last face stay without.
    """
    filled = [list(frame) for frame in boxes]
    known = [index for index, frame in enumerate(boxes) if frame]
    for before, after in pairwise(known):
        gap = after - before - 1
        if not 0 < gap <= longest:
            continue
        pairs = _partners(boxes[before], boxes[after])
        for step in range(1, gap + 1):
            filled[before + step] = [_between(*pair, step / (gap + 1)) for pair in pairs]
    return filled


def box_of(corners: Corners) -> Box:
    """The pixels of a detector's box: corners truncated, and included."""
    left, top, right, bottom = (int(value) for value in corners)
    return Box(top, bottom + 1, left, right + 1)


def frames_without_face(boxes: FaceBoxes) -> list[int]:
    """Numbers of the frames that have no box."""
    return [index for index, frame in enumerate(boxes) if not frame]


def _face_of(person: Person, height: int, width: int) -> Box | None:
    points, scores = person.part("face")
    seen, growth = points[scores > VISIBLE], 0.0
    if len(seen) < MIN_FACE_POINTS:
        head = list(_HEAD)
        seen, growth = person.body[head][person.body_score[head] > VISIBLE], _HEAD_GROWTH
        if len(seen) < 3:
            return None
    (x0, y0), (x1, y1) = seen.min(axis=0) * [width, height], seen.max(axis=0) * [width, height]
    if growth:  # nose, eyes and ears lie in a line: their height says nothing
        y0, y1 = (y0 + y1 - (x1 - x0)) / 2, (y0 + y1 + (x1 - x0)) / 2
    return _grown(box_of((x0, y0, x1, y1)), growth)


def _grown(box: Box, fraction: float) -> Box:
    down, across = round((box.bottom - box.top) * fraction), round((box.right - box.left) * fraction)
    return Box(box.top - down, box.bottom + down, box.left - across, box.right + across)


def _inside(boxes: Sequence[Box], height: int, width: int) -> list[Box]:
    cut = [Box(max(0, b.top), min(height, b.bottom), max(0, b.left), min(width, b.right)) for b in boxes]
    return [box for box in cut if box.top < box.bottom and box.left < box.right]


def _partners(before: Sequence[Box], after: Sequence[Box]) -> list[tuple[Box, Box]]:
    from scipy.optimize import linear_sum_assignment

    starts, ends = (
        np.array([[box.top + box.bottom, box.left + box.right] for box in side]) for side in (before, after)
    )
    rows, columns = linear_sum_assignment(np.linalg.norm(starts[:, None] - ends, axis=2))
    return [(before[row], after[column]) for row, column in zip(rows, columns, strict=True)]


def _between(start: Box, end: Box, share: float) -> Box:
    return Box(*(round(a + (b - a) * share) for a, b in zip(start, end, strict=True)))
