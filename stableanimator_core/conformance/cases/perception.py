"""Cases around the two DWPose networks: what goes in, what is made of their outputs, and OpenPose order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...pose import dwpose_detector as detector
from ...pose import dwpose_joints as joints
from ...pose.dwpose import to_people
from ...pose.people import VISIBLE
from ..checks import Row, absolute, case, close, exact
from ..golden import Golden

_SIZE = (384, 288)  # height and width of the pose network's input


@case("wholebody")
def check_wholebody(golden: Golden) -> Iterator[Row]:
    """Neck, order, and the split into body, hands and face."""
    for name, info in golden.sidecar["cases"].items():
        placed, scores = joints.with_neck(
            golden[f"{name}.keypoints_in"].numpy(), golden[f"{name}.scores_in"].numpy()
        )
        yield absolute(
            f"{name}.keypoints_out",
            torch.from_numpy(placed),
            golden.expected(f"{name}.keypoints_out_f64"),
            1e-12,
        )
        yield absolute(
            f"{name}.scores_out", torch.from_numpy(scores), golden.expected(f"{name}.scores_out_f64"), 1e-12
        )
        people = to_people(placed, scores, info["height"], info["width"])
        for part, got in _official_split(people).items():
            yield absolute(
                f"{name}.pose_{part}",
                torch.from_numpy(got),
                golden.expected(f"{name}.pose_{part}_f64"),
                1e-12,
            )


@case("dwpose_onnx")
def check_dwpose_onnx(golden: Golden) -> Iterator[Row]:
    """Detector input, boxes, crops, decoded key points."""
    for index, file_name in enumerate(golden.sidecar["images"]):
        image = _pixels(golden.folder / file_name)
        yield from _check_detector(
            golden, f"img{index}", image, golden.folder / f"dwpose/det_input_{index}.png"
        )
        for kind in ("dets", "no_box"):
            yield from _check_joints(golden, f"img{index}", kind, image)


def _check_detector(golden: Golden, name: str, image: np.ndarray, stored_input: Path) -> Iterator[Row]:
    size = (detector.INPUT_SIZE, detector.INPUT_SIZE)
    tensor, ratio = detector.letterbox(image[None], size)
    yield exact(f"{name}.det_input", _tensor(tensor[0].transpose(1, 2, 0)), _tensor(_pixels(stored_input)))
    for kind in ("dets", "only_weak", "nothing"):
        if f"{name}.{kind}.rows" not in golden.tensors:
            continue
        raw = np.zeros((detector.num_anchors(*size), 85), dtype=np.float32)
        raw[golden[f"{name}.{kind}.rows"].numpy()] = golden[f"{name}.{kind}.values"].numpy()
        boxes = detector.person_boxes(raw, size, ratio)
        if kind == "dets":
            yield absolute(
                f"{name}.dets.boxes", torch.from_numpy(boxes), golden.expected(f"{name}.dets.boxes_f64"), 1e-3
            )
        else:
            yield exact(f"{name}.{kind}: no person", len(boxes), 0)


def _check_joints(golden: Golden, name: str, kind: str, image: np.ndarray) -> Iterator[Row]:
    stem = f"{name}.pose_{kind}"
    if kind == "dets":
        boxes = golden[f"{name}.dets.boxes_f64"].numpy()
    else:
        boxes = np.array([[0, 0, image.shape[1], image.shape[0]]], dtype=np.float64)
    centres, extents = joints.crop_regions(boxes, _SIZE)
    yield absolute(f"{stem}.centers", torch.from_numpy(centres), golden.expected(f"{stem}.centers_f64"), 1e-9)
    yield absolute(f"{stem}.scales", torch.from_numpy(extents), golden.expected(f"{stem}.scales_f64"), 1e-9)
    crops = [joints.crop(image, *region, _SIZE) for region in zip(centres, extents, strict=True)]
    inputs = np.stack([joints.normalise(picture) for picture in crops])
    probe = torch.from_numpy(np.ascontiguousarray(inputs[:, :, ::16, ::16]))
    yield absolute(f"{stem}.input_stride16", probe, golden.expected(f"{stem}.input_stride16"), 1e-6)
    for person, picture in enumerate(crops):
        stored = golden.folder / f"dwpose/pose_input_{name}_{kind}_{person}.png"
        yield exact(f"{stem}.crop{person}", _tensor(picture), _tensor(_pixels(stored)))
    places, scores = joints.decode(*_simcc(golden, stem))
    found = joints.to_frame(places, centres, extents, _SIZE)
    yield close(
        f"{stem}.keypoints",
        torch.from_numpy(found),
        golden.expected(f"{stem}.keypoints_f64"),
        rtol=1e-6,
        atol=1e-9,
    )
    yield absolute(f"{stem}.scores", torch.from_numpy(scores), golden.expected(f"{stem}.scores_f64"), 1e-12)


def _simcc(golden: Golden, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """The network outputs of the golden's SimCC recipe, a tie at joint 20 included."""
    outputs = []
    for axis, side in (("x", _SIZE[1]), ("y", _SIZE[0])):
        peak, second = golden[f"{stem}.{axis}_peak"], golden[f"{stem}.{axis}_second"]
        value = golden[f"{stem}.{axis}_value"]
        bins = torch.full((*peak.shape, 2 * side), -0.05)
        bins.scatter_(2, second[..., None], 0.5 * value[..., None])
        bins.scatter_(2, peak[..., None], value[..., None])
        if axis == "x":
            person = torch.arange(len(peak))
            bins[person, 20, (peak[:, 20] + 100) % (2 * side)] = value[:, 20]
        outputs.append(bins.numpy())
    return outputs[0], outputs[1]


def _official_split(people: list) -> dict[str, np.ndarray]:
    """The arrays of the official detector's result from our persons."""
    score = np.stack([person.body_score for person in people])
    rows = np.arange(score.size, dtype=np.float64).reshape(score.shape)
    hands = [[person.left_hand for person in people], [person.right_hand for person in people]]
    hand_scores = [
        [person.left_hand_score for person in people],
        [person.right_hand_score for person in people],
    ]
    return {
        "candidate": np.concatenate([person.body for person in people]),
        "subset": np.where(score > VISIBLE, rows, -1.0),
        "score": score,
        "hands": np.concatenate([np.stack(side) for side in hands]),
        "hands_score": np.concatenate([np.stack(side) for side in hand_scores]),
        "faces": np.stack([person.face for person in people]),
        "faces_score": np.stack([person.face_score for person in people]),
    }


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32))


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
