"""python benchmarks/draw_poses.py: skeleton drawing against the plain way, the same frames side by side.

The plain way is what the official script does for each frame: a new canvas, limbs, the whole canvas
multiplied in floating point, joints, hands, face, one bilinear reduction; one frame after the other. Both
must agree in every pixel, otherwise this ends with an error.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from stableanimator_core.pose import draw
from stableanimator_core.pose.keypoints import load_pose_json
from stableanimator_core.pose.people import Frame

MOTION = Path(__file__).parents[1] / "assets" / "motion"


def plain_frame(frame: Frame, height: int, width: int) -> np.ndarray:
    """One frame the plain way: uint8 [H W 3]."""
    scale = draw.CANVAS_SHORT_SIDE / min(height, width)
    canvas = np.zeros((int(height * scale), int(width * scale), 3), dtype=np.uint8)
    size = np.array([canvas.shape[1], canvas.shape[0]], dtype=np.float64)
    canvas = plain_bodies(canvas, frame, size)
    for name in ("left_hand", "right_hand"):
        for person in frame.people:
            plain_hand(canvas, *person.part(name), size)
    for person in frame.people:
        for point, score in zip(person.face * size, person.face_score, strict=True):
            x, y = int(point[0]), int(point[1])
            if x > 0 and y > 0:
                cv2.circle(canvas, (x, y), draw.FACE_RADIUS, [int(score * 255)] * 3, thickness=-1)
    return cv2.resize(canvas, (width, height))


def plain_bodies(canvas: np.ndarray, frame: Frame, size: np.ndarray) -> np.ndarray:
    for limb, ends in enumerate(draw.LIMBS):
        for person in frame.people:
            if not person.visible[list(ends)].all():
                continue
            (x0, y0), (x1, y1) = person.body[list(ends)] * size
            shade = person.body_score[list(ends)].prod()
            axes = (int(math.hypot(x0 - x1, y0 - y1) / 2), draw.LIMB_HALF_WIDTH)
            angle = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
            polygon = cv2.ellipse2Poly((int((x0 + x1) / 2), int((y0 + y1) / 2)), axes, angle, 0, 360, 1)
            cv2.fillConvexPoly(canvas, polygon, [int(channel * shade) for channel in draw.COLOURS[limb]])
    canvas = (canvas * draw.BODY_DIMMING).astype(np.uint8)
    for joint, colour in enumerate(draw.COLOURS):
        for person in frame.people:
            if person.visible[joint]:
                x, y = (person.body[joint] * size).astype(int).tolist()
                shade = person.body_score[joint]
                cv2.circle(canvas, (x, y), draw.JOINT_RADIUS, [int(c * shade) for c in colour], -1)
    return canvas


def plain_hand(canvas: np.ndarray, points: np.ndarray, scores: np.ndarray, size: np.ndarray) -> None:
    places = [(int(x), int(y)) for x, y in points * size]
    for (start, end), hue in zip(draw.HAND_LINES, draw.HAND_HUES, strict=True):
        if min(*places[start], *places[end]) > 0:
            shade = int(scores[start] * scores[end] * 255)
            colour = [channel * shade for channel in hue]
            cv2.line(canvas, places[start], places[end], colour, thickness=draw.HAND_LINE_WIDTH)
    for place, score in zip(places, scores, strict=True):
        if min(place) > 0:
            cv2.circle(canvas, place, draw.HAND_RADIUS, (0, 0, int(score * 255)), thickness=-1)


def seconds(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(frames: list[Frame], height: int, width: int, rounds: int, plain_frames: int) -> None:
    """Print one row: milliseconds a frame of each way, interleaved rounds, medians."""
    ours, one_thread, plain = [], [], []
    shorter = frames[:plain_frames]
    for _ in range(rounds):
        taken, expected = seconds(lambda: np.stack([plain_frame(frame, height, width) for frame in shorter]))
        plain.append(taken / len(shorter))
        taken, pictures = seconds(lambda: draw.draw_clip(frames, height, width))
        ours.append(taken / len(frames))
        taken, _ = seconds(lambda: draw.draw_clip(frames, height, width, workers=1))
        one_thread.append(taken / len(frames))
        if not np.array_equal(pictures[: len(shorter)], expected):
            sys.exit("the pictures differ")
    medians = [1000 * statistics.median(times) for times in (plain, one_thread, ours)]
    ratio = medians[0] / medians[2]
    print(f"{width}x{height:<6} {medians[0]:9.1f} {medians[1]:12.2f} {medians[2]:9.2f} {ratio:8.1f}x  equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300, help="frames of the clip")
    parser.add_argument("--plain-frames", type=int, default=300, help="of them drawn the plain way too")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    clip = load_pose_json(MOTION / "jumping_jacks_512x512.json")
    frames = [clip[number % len(clip)] for number in range(options.frames)]
    print(f"{len(frames)} frames, {os.cpu_count()} cores, OpenCV {cv2.__version__}; milliseconds a frame")
    print(f"{'size':12} {'plain':>7} {'one thread':>12} {'threads':>9} {'ratio':>9}")
    for height, width in ((512, 512), (1024, 576)):
        compare(frames, height, width, options.rounds, options.plain_frames)


if __name__ == "__main__":
    main()
