"""Skeletons: drawing and the official alignment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...pose.align import AlignOptions, align
from ...pose.draw import draw_frame
from ...pose.people import Frame, Person
from ..checks import Row, absolute, case, differing_share, exact
from ..golden import Golden

OTHER_OPENCV_SHARE = 5e-3
"""Share of pixels that may differ: the goldens are from OpenCV 4.11, others may fill edges differently."""


@case("pose_draw")
def pose_draw(golden: Golden) -> Iterator[Row]:
    for name, file in sorted(golden.sidecar["files"].items()):
        frame = golden_frame(golden, file["case"], file["W"], file["H"])
        yield from picture_rows(draw_frame(frame, file["H"], file["W"]), golden.folder / "pose_draw" / name)
        recorded = hashlib.sha256(read_rgb(golden.folder / "pose_draw" / name).tobytes()).hexdigest()
        yield exact(f"{name} is the recorded picture", recorded, file["sha256_of_rgb_bytes"])


@case("pose_align")
def pose_align(golden: Golden) -> Iterator[Row]:
    for name, info in golden.sidecar["cases"].items():
        height, width = info["height"], info["width"]
        reference = golden_frame(golden, f"{name}.ref", width, height)
        driven = [golden_frame(golden, f"{name}.driven{i}", width, height) for i in range(info["frames"])]
        result = align(driven, reference, AlignOptions(mode="official"))
        yield exact(f"{name}: joints", list(result.joints), info["joints_used_in_fit"])
        yield absolute(
            f"{name}: scale", torch.from_numpy(result.scale), golden.expected(f"{name}.a_f64"), 1e-9
        )
        yield absolute(
            f"{name}: offset", torch.from_numpy(result.offset), golden.expected(f"{name}.b_f64"), 1e-9
        )
        for i, frame in enumerate(result.frames):
            for field, got in detector_form(frame).items():
                expected = golden.expected(f"{name}.aligned{i}.{field}_f64")
                yield absolute(f"{name}: frame {i} {field}", got, expected, 1e-9)
            picture = golden.folder / "pose_align" / f"{name}_frame_{i}.png"
            yield from picture_rows(draw_frame(frame, height, width), picture)


def picture_rows(drawn: np.ndarray, path: Path) -> Iterator[Row]:
    """Share of the pixels (any channel) that differ from the stored picture."""
    differs = torch.from_numpy((drawn != read_rgb(path)).any(axis=2))
    name = f"{path.name} pixels"
    yield differing_share(name, differs, torch.zeros_like(differs), beyond=0.5, tolerance=OTHER_OPENCV_SHARE)


def read_rgb(path: Path) -> np.ndarray:
    """uint8 [H W 3] of a picture file."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def golden_frame(golden: Golden, prefix: str, width: int, height: int) -> Frame:
    """A frame from the detector's form: hands are the first hands of all people, then the second ones."""
    tensors = {
        name: golden[f"{prefix}.{name}"].double().numpy()
        for name in ("candidate", "score", "hands", "hands_score", "faces", "faces_score")
    }
    number = len(tensors["score"])
    people = [
        Person(
            body=tensors["candidate"].reshape(number, 18, 2)[i],
            body_score=tensors["score"][i],
            face=tensors["faces"][i],
            face_score=tensors["faces_score"][i],
            left_hand=tensors["hands"][i],
            left_hand_score=tensors["hands_score"][i],
            right_hand=tensors["hands"][number + i],
            right_hand_score=tensors["hands_score"][number + i],
        )
        for i in range(number)
    ]
    return Frame(tuple(people), width, height)


def detector_form(frame: Frame) -> dict[str, Tensor]:
    """The arrays of the detector's form of a frame: candidate [18p 2], hands [2p 21 2], faces [p 68 2]."""
    hands = [p.left_hand for p in frame.people] + [p.right_hand for p in frame.people]
    return {
        "candidate": torch.from_numpy(np.concatenate([p.body for p in frame.people])),
        "hands": torch.from_numpy(np.stack(hands)),
        "faces": torch.from_numpy(np.stack([p.face for p in frame.people])),
    }
