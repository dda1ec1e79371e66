"""Tiny ONNX networks in the layouts of the real detectors. They look at the picture, in simple ways a test
can plan.

    python tests/standins.py FOLDER    writes DWPose/*.onnx and antelopev2/*.onnx under their official names

YOLOX     sees a person in each of its fixed boxes if the picture is bright in that person's colour channel
DWPose    puts all 133 key points on the brightest column and row of the crop
SCRFD     sees a face in every bright 32x32 cell of its input
ArcFace   mean colours of 7x7 patches times a fixed random matrix
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Box = tuple[float, float, float, float]
PERSON: Box = (160, 60, 480, 600)
# In a 32x32 cell, fractions: eyes, nose, corners of the mouth, about as ArcFace's template has them.
FACE_LANDMARKS = ((0.34, 0.46), (0.66, 0.46), (0.5, 0.64), (0.37, 0.82), (0.63, 0.82))


def yolox(
    path: Path, boxes: Sequence[Box] = (PERSON,), *, size: int = 640, batch: int | str = 1, classes: int = 80
) -> Path:
    """[batch 3 size size] -> [batch anchors 5+classes]; person k has box k if channel k % 3 is bright
    somewhere.

    `boxes` are corners in input pixels. A picture that leaves grey borders stays below "bright" (180) there.
    """
    anchors = sum((size // stride) ** 2 for stride in (8, 16, 32))
    before_last = sum((size // stride) ** 2 for stride in (8, 16))
    rows, places = np.zeros((len(boxes), 5 + classes), "f"), []
    for row, (left, top, right, bottom) in zip(rows, boxes, strict=True):
        x, y = (left + right) / 64, (top + bottom) / 64
        row[:4] = x - int(x), y - int(y), np.log((right - left) / 32), np.log((bottom - top) / 32)
        row[5] = 1  # class "person"
        places.append(before_last + int(y) * (size // 32) + int(x))
    selector = np.zeros((len(boxes), anchors), "f")
    selector[np.arange(len(boxes)), places] = 1
    channel = np.arange(len(boxes)) % 3
    graph = _Graph()
    graph.add("ReduceMax", "images", out="brightest", axes=[2, 3], keepdims=0)
    graph.add("Gather", "brightest", graph.constant(channel), out="mine", axis=1)
    graph.add("Sub", "mine", graph.constant(np.float32(130)), out="above")
    graph.add("Div", "above", graph.constant(np.float32(100)), out="share")
    graph.add("Clip", "share", graph.constant(np.float32(0)), graph.constant(np.float32(0.95)), out="sure")
    graph.add("MatMul", "sure", graph.constant(selector), out="by_anchor")
    graph.add("Unsqueeze", "by_anchor", graph.constant(np.array([2])), out="column")
    objectness = np.zeros(5 + classes, "f")
    objectness[4] = 1
    graph.add("Mul", "column", graph.constant(objectness), out="objectness")
    fixed = graph.scattered(rows, places, anchors)
    graph.add("Add", "objectness", fixed, out="output")
    return graph.save(path, {"images": [batch, 3, size, size]}, {"output": [batch, anchors, 5 + classes]})


def simcc(
    path: Path, *, height: int = 384, width: int = 288, batch: int | str = "n", joints: int = 133
) -> Path:
    """[batch 3 height width] -> SimCC of every joint at the brightest column and row of the crop, score as
    bright.
    """
    graph = _Graph()
    outputs = {}
    for name, axis, side in (("simcc_x", 2, width), ("simcc_y", 3, height)):
        graph.add("ReduceMax", "input", out=f"{name}_line", axes=[1, axis], keepdims=0)
        graph.add("Unsqueeze", f"{name}_line", graph.constant(np.array([1, 3])), out=f"{name}_column")
        graph.add(
            "Expand", f"{name}_column", graph.constant(np.array([1, joints, side, 2])), out=f"{name}_twice"
        )
        graph.add(
            "Reshape", f"{name}_twice", graph.constant(np.array([-1, joints, 2 * side])), out=f"{name}_raw"
        )
        graph.add("Mul", f"{name}_raw", graph.constant(np.float32(0.4)), out=name)
        outputs[name] = [batch, joints, 2 * side]
    return graph.save(path, {"input": [batch, 3, height, width]}, outputs)


def scrfd(path: Path, *, size: int | None = None, largest: int = 640, landmarks: bool = True) -> Path:
    """[1 3 H W] -> a face in each 32x32 cell whose mean is above 0, if the input is at most `largest` wide.

    `size` fixes H and W. Boxes are the cells, landmarks `FACE_LANDMARKS` in them.
    """
    graph, outputs = _Graph(), {}
    graph.add("Shape", "input.1", out="shape")
    graph.add("Slice", "shape", *(graph.constant(np.array([v])) for v in (3, 4, 0)), out="wide")
    graph.add("LessOrEqual", "wide", graph.constant(np.array([largest])), out="allowed")
    graph.add("Cast", "allowed", out="switch", to=TensorProto.FLOAT)
    kinds = {"score": 1, "bbox": 4, "kps": 10} if landmarks else {"score": 1, "bbox": 4}
    tables = {"bbox": np.array([0, 0, 1, 1], "f"), "kps": np.array(FACE_LANDMARKS, "f").ravel()}
    for stride in (8, 16, 32):
        graph.add("ReduceMean", "input.1", out=f"grey_{stride}", axes=[1], keepdims=1)
        graph.add(
            "AveragePool",
            f"grey_{stride}",
            out=f"mean_{stride}",
            kernel_shape=[stride] * 2,
            strides=[stride] * 2,
        )
        graph.add("Reshape", f"mean_{stride}", graph.constant(np.array([-1, 1])), out=f"cells_{stride}")
        bright = np.array([[0.9, 0.0]], "f") if stride == 32 else np.zeros((1, 2), "f")  # two anchors a cell
        graph.add("MatMul", f"cells_{stride}", graph.constant(bright), out=f"pairs_{stride}")
        graph.add("Reshape", f"pairs_{stride}", graph.constant(np.array([-1, 1])), out=f"flat_{stride}")
        graph.add("Mul", f"flat_{stride}", "switch", out=f"score_{stride}")
        graph.add("Mul", f"flat_{stride}", graph.constant(np.float32(0)), out=f"none_{stride}")
        for kind, table in tables.items():
            graph.add("Add", f"none_{stride}", graph.constant(table), out=f"{kind}_{stride}")
    for kind, columns in kinds.items():
        for stride in (8, 16, 32):
            rows = 2 * (size // stride) ** 2 if size else f"{kind}_rows_{stride}"
            outputs[f"{kind}_{stride}"] = [rows, columns]
    side = [size, size] if size else ["height", "width"]
    return graph.save(path, {"input.1": [1, 3, *side]}, outputs)


def arcface(
    path: Path, *, seed: int = 0, batch: int | str = "None", side: int = 112, width: int = 512
) -> Path:
    """[batch 3 side side] -> [batch width]."""
    patch = side // 7
    projection = np.random.RandomState(seed).standard_normal((3 * 7 * 7, width)).astype("f") / 12
    graph = _Graph()
    graph.add("AveragePool", "input.1", out="patches", kernel_shape=[patch] * 2, strides=[patch] * 2)
    graph.add("Flatten", "patches", out="flat")
    graph.add("MatMul", "flat", graph.constant(projection), out="683")
    return graph.save(path, {"input.1": [batch, 3, side, side]}, {"683": [batch, width]})


def official_tree(folder: Path) -> Path:
    """All four stand-ins where the official downloads lie; the folder."""
    for sub in ("DWPose", "antelopev2"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    yolox(folder / "DWPose/yolox_l.onnx")
    simcc(folder / "DWPose/dw-ll_ucoco_384.onnx")
    scrfd(folder / "antelopev2/scrfd_10g_bnkps.onnx")
    arcface(folder / "antelopev2/glintr100.onnx")
    return folder


class _Graph:
    """Collects nodes and constants."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, kind: str, *inputs: str, out: str, **attributes) -> None:
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))

    def constant(self, values: np.ndarray | np.generic) -> str:
        array = np.asarray(values)
        name = f"constant_{len(self.constants)}"
        array = array.astype(np.int64) if array.dtype.kind == "i" else array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def scattered(self, rows: np.ndarray, places: Sequence[int], count: int) -> str:
        """`rows` at `places` of a table [1 count n] of zeros that is made when the network runs, to keep
        files small.
        """
        shape = self.constant(np.array([1, count, rows.shape[1]]))
        where = self.constant(np.array([[[0, place] for place in places]]))
        self.add("ConstantOfShape", shape, out="zeros")
        self.add("ScatterND", "zeros", where, self.constant(rows[None]), out="table")
        return "table"

    def save(self, path: Path, inputs: dict[str, list], outputs: dict[str, list]) -> Path:
        values = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "standin", values[0], values[1], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return Path(path)


if __name__ == "__main__":
    for file in sorted(official_tree(Path(sys.argv[1])).rglob("*.onnx")):
        print(file, file.stat().st_size)
