"""Detectors that see the same standing figure in every bright picture, with all its joints apart.

The pose network of `standins` puts every joint on one spot, which cannot be aligned. This one holds the
figure of the shipped motion's first frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import standins

from stableanimator_core.pose.dwpose_joints import _OPENPOSE_ORDER
from stableanimator_core.pose.people import Person

MOTION = Path(__file__).parents[1] / "assets" / "motion" / "jumping_jacks_512x512.json"
HEIGHT, WIDTH = 384, 288
_MARGIN = 0.1


def write_detectors(folder: Path) -> tuple[Path, Path]:
    """yolox_l.onnx and dw-ll_ucoco_384.onnx in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    detector = standins.yolox(folder / "yolox_l.onnx")
    return detector, standing_figure(folder / "dw-ll_ucoco_384.onnx")


def standing_figure(path: Path) -> Path:
    """[n 3 384 288] -> SimCC with a peak of 0.9 for every joint of the figure, whatever the crop shows."""
    from stableanimator_core.pose.keypoints import load_pose_json

    places = _in_crop(_coco(load_pose_json(MOTION)[0].people[0]))
    graph = standins._Graph()
    graph.add("ReduceMean", "input", out="mean", axes=[1, 2, 3], keepdims=0)
    graph.add("Mul", "mean", graph.constant(np.float32(0)), out="none")
    graph.add("Unsqueeze", "none", graph.constant(np.array([1, 2])), out="per_crop")
    outputs = {}
    for axis, (name, side) in enumerate((("simcc_x", WIDTH), ("simcc_y", HEIGHT))):
        table = np.zeros((1, len(places), 2 * side), "f")
        table[0, np.arange(len(places)), np.round(2 * places[:, axis]).astype(int)] = 0.9
        graph.add("Add", "per_crop", graph.constant(table), out=name)
        outputs[name] = ["n", len(places), 2 * side]
    return graph.save(path, {"input": ["n", 3, HEIGHT, WIDTH]}, outputs)


def _coco(person: Person) -> np.ndarray:
    """The figure's 133 points [133 2], pixels, in COCO-WholeBody order; the feet lie on the ankles."""
    body = np.zeros((17, 2))
    for place, joint in enumerate(_OPENPOSE_ORDER):
        if joint < 17:
            body[joint] = person.body[place]
    feet = np.repeat(body[15:17], 3, axis=0)
    return np.concatenate([body, feet, person.face, person.left_hand, person.right_hand]) * 512


def _in_crop(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.array([WIDTH, HEIGHT])
    scale = ((1 - 2 * _MARGIN) * size / (high - low)).min()
    return (points - (low + high) / 2) * scale + size / 2
