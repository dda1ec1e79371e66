"""Skeleton pictures, pixel for pixel as the network saw them in training.

Animate Anyone's are coarser: the same strokes on a canvas of 512 pixels, in full colour where the score is above 0.3
and absent elsewhere (MooreThreads/Moore-AnimateAnyone, `src/dwpose`).

Source: StableAnimator, `DWPose/training_skeleton_extraction.py` and `skeleton_extraction.py` @ 020e7f2: a
black canvas with a short side of 2160 pixels, strokes of fixed width shaded by their scores, shrunk by plain
bilinear sampling. Different in the way, not in the pixels: limbs are painted in the colour they have after
the official dimming, canvases are kept and only the touched part is wiped, frames are drawn in parallel.
"""

from __future__ import annotations

import colorsys
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .people import PART_SIZES, VISIBLE, Array, Frame, Person

Picture = NDArray[np.uint8]

CANVAS_SHORT_SIDE = 2160
LIMB_HALF_WIDTH = 4
JOINT_RADIUS = 4
HAND_RADIUS = 4
HAND_LINE_WIDTH = 2
FACE_RADIUS = 3
BODY_DIMMING = 0.6
MAX_SIDE = 8192

COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
HAND_LINES = tuple(
    (0 if row == 0 else 4 * finger + row, 4 * finger + row + 1) for finger in range(5) for row in range(4)
)
HAND_HUES = tuple(colorsys.hsv_to_rgb(line / len(HAND_LINES), 1.0, 1.0) for line in range(len(HAND_LINES)))

_FARTHEST = 30_000  # canvas pixels; beyond it nothing can be seen and OpenCV's integers come to their end
_canvases = threading.local()


@dataclass(frozen=True)
class Style:
    """How it is drawn.

    Attributes:
        short_side: of the canvas, on which strokes have their fixed widths.
        shaded: colours fade with the scores; else what is seen has its full colour and the rest is left out.
    """

    short_side: int
    shaded: bool


STYLES = {"StableAnimator": Style(CANVAS_SHORT_SIDE, True), "Animate Anyone": Style(512, False)}


@dataclass(frozen=True)
class Parts:
    """What is drawn."""

    body: bool = True
    hands: bool = True
    face: bool = True
    style: Style = STYLES["StableAnimator"]


def draw_frame(
    frame: Frame, height: int, width: int, *, body: bool = True, hands: bool = True, face: bool = True
) -> Picture:
    """The skeleton picture of one frame: uint8 [H W 3], RGB in the usual OpenPose colours, on black.

    Nobody in the frame gives a black picture. Points are fractions, so the picture shows all of the frame at
    any size; give it the aspect that the frame has.

    Args:
        frame: who is drawn; limbs and joints need a score above 0.3, hands and faces get dark instead.
        height: of the picture, pixels.
        width: of the picture, pixels.
        body: draw limbs and joints.
        hands: draw both hands.
        face: draw the 68 face points.

    Raises:
        InputError: a side outside 16..8192.
    """
    _check_size(height, width)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    _draw_into(picture, frame, Parts(body, hands, face))
    return picture


def draw_clip(
    frames: Sequence[Frame],
    height: int,
    width: int,
    *,
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    style: str = "StableAnimator",
    on_frame: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Picture:
    """The skeleton pictures of a clip: uint8 [f H W 3], as `draw_frame` draws each.

    Args:
        frames: the clip.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
        body: draw limbs and joints.
        hands: draw both hands.
        face: draw the 68 face points.
        style: a key of `STYLES`, whose network the pictures are for.
        on_frame: called in this thread with the number of finished frames; an exception from it ends the
            drawing.
        workers: threads; by default one per core, at most eight.

    Raises:
        InputError: a side outside 16..8192.
    """
    _check_size(height, width)
    pictures = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    parts = Parts(body, hands, face, STYLES[style])
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8), thread_name_prefix="draw_poses")
    try:
        drawn = pool.map(
            lambda number: _draw_into(pictures[number], frames[number], parts), range(len(frames))
        )
        for done, _ in enumerate(drawn, start=1):
            if on_frame is not None:
                on_frame(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return pictures


def _check_size(height: int, width: int) -> None:
    if not (16 <= height <= MAX_SIDE and 16 <= width <= MAX_SIDE):
        raise InputError(
            "skeleton size", f"is {width}x{height}", f"use sides between 16 and {MAX_SIDE} pixels"
        )


def _draw_into(picture: Picture, frame: Frame, parts: Parts) -> None:
    """Draw `frame` over the whole of `picture` [H W 3]."""
    import cv2

    height, width = picture.shape[:2]
    canvas = _empty_canvas(height, width, parts.style.short_side)
    painter = Painter(canvas)
    frame = frame if parts.style.shaded else _flat(frame)
    if parts.body:
        painter.bodies(frame)
    if parts.hands:
        for name in (
            "left_hand",
            "right_hand",
        ):  # all first hands before all second ones, as the official order
            for person in frame.people:
                painter.hand(*person.part(name))
    if parts.face:
        for person in frame.people:
            painter.face(person.face, person.face_score)
    try:
        cv2.resize(canvas, (width, height), dst=picture)
    finally:
        painter.wipe()


def _flat(frame: Frame) -> Frame:
    """The frame with the score 1 for all that counts as seen and 0 for the rest."""

    def flat(person: Person) -> Person:
        for name in PART_SIZES:
            points, scores = person.part(name)
            person = person.with_part(name, points, (scores > VISIBLE).astype(scores.dtype))
        return person

    return replace(frame, people=tuple(flat(person) for person in frame.people))


def _empty_canvas(height: int, width: int, short_side: int) -> Picture:
    """This thread's black canvas for pictures of this size."""
    scale = short_side / min(height, width) if min(height, width) != short_side else 1
    shape = (int(height * scale), int(width * scale), 3)
    canvas = getattr(_canvases, "canvas", None)
    if canvas is None or canvas.shape != shape:
        canvas = _canvases.canvas = np.zeros(shape, dtype=np.uint8)
    return canvas


class Painter:
    """Paints on one canvas [H W 3] and knows which part of it is no longer black."""

    def __init__(self, canvas: Picture):
        self.canvas = canvas
        self.size = np.array(canvas.shape[1::-1], dtype=np.float64)  # [2] width, height
        self.left, self.top, self.right, self.bottom = canvas.shape[1], canvas.shape[0], 0, 0

    def bodies(self, frame: Frame) -> None:
        """Limbs of all people, limb by limb, then their joints."""
        pixels = [person.body * self.size for person in frame.people]
        for limb, (start, end) in enumerate(LIMBS):
            for person, points in zip(frame.people, pixels, strict=True):
                if person.visible[start] and person.visible[end]:
                    shade = float(person.body_score[start] * person.body_score[end])
                    colour = [int(min(int(channel * shade), 255) * BODY_DIMMING) for channel in COLOURS[limb]]
                    self._limb(points[start], points[end], colour)
        for joint, colour in enumerate(COLOURS):
            for person, points in zip(frame.people, pixels, strict=True):
                if person.visible[joint]:
                    shade = float(person.body_score[joint])
                    self._dot(
                        *_truncated(points[joint]), JOINT_RADIUS, [int(channel * shade) for channel in colour]
                    )

    def hand(self, points: Array, scores: Array) -> None:
        """The lines, then the dots, of one hand [21 2] with scores [21]."""
        import cv2

        places = [_truncated(point) for point in points * self.size]
        shown = [_is_inside(place) and score != 0 for place, score in zip(places, scores, strict=True)]
        for (start, end), hue in zip(HAND_LINES, HAND_HUES, strict=True):
            if shown[start] and shown[end]:
                shade = int(scores[start] * scores[end] * 255)
                colour = [channel * shade for channel in hue]
                cv2.line(self.canvas, places[start], places[end], colour, thickness=HAND_LINE_WIDTH)
                self._touched(*places[start], HAND_RADIUS)
                self._touched(*places[end], HAND_RADIUS)
        for place, score, is_shown in zip(places, scores, shown, strict=True):
            if is_shown:
                self._dot(*place, HAND_RADIUS, [0, 0, int(score * 255)])

    def face(self, points: Array, scores: Array) -> None:
        """The dots of one face [68 2] with scores [68]."""
        for point, score in zip(points * self.size, scores, strict=True):
            place = _truncated(point)
            if _is_inside(place) and score != 0:
                self._dot(*place, FACE_RADIUS, [int(score * 255)] * 3)

    def wipe(self) -> None:
        """Make the canvas black again."""
        self.canvas[max(self.top, 0) : max(self.bottom, 0), max(self.left, 0) : max(self.right, 0)] = 0
        self.left, self.top, self.right, self.bottom = self.canvas.shape[1], self.canvas.shape[0], 0, 0

    def _limb(self, start: Array, end: Array, colour: list[int]) -> None:
        import cv2

        if max(np.abs(start).max(), np.abs(end).max()) > _FARTHEST:
            return
        centre_x, centre_y = (start + end) / 2
        (x0, y0), (x1, y1) = start, end
        length = ((y0 - y1) ** 2 + (x0 - x1) ** 2) ** 0.5
        angle = math.degrees(math.atan2(y0 - y1, x0 - x1))
        axes = (int(length / 2), LIMB_HALF_WIDTH)
        centre = (int(centre_x), int(centre_y))
        polygon = np.asarray(cv2.ellipse2Poly(centre, axes, int(angle), 0, 360, 1), dtype=np.int32)
        cv2.fillConvexPoly(self.canvas, polygon, colour)
        left, top, width, height = cv2.boundingRect(polygon)
        self._touched(left, top, 1)
        self._touched(left + width, top + height, 1)

    def _dot(self, x: int, y: int, radius: int, colour: Sequence[float]) -> None:
        import cv2

        if max(abs(x), abs(y)) <= _FARTHEST:
            cv2.circle(self.canvas, (x, y), radius, colour, thickness=-1)
            self._touched(x, y, radius)

    def _touched(self, x: int, y: int, margin: int) -> None:
        self.left, self.top = min(self.left, x - margin), min(self.top, y - margin)
        self.right, self.bottom = max(self.right, x + margin + 1), max(self.bottom, y + margin + 1)


def _truncated(point: Iterable[float]) -> tuple[int, int]:
    x, y = point
    return int(x), int(y)


def _is_inside(place: tuple[int, int]) -> bool:
    """The official test for hand and face points: left and top edge count, right and bottom do not."""
    return 0 < place[0] <= _FARTHEST and 0 < place[1] <= _FARTHEST
