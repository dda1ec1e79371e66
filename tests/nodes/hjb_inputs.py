"""A face, where faces are, and settings, for the tests of the face optimisation's nodes."""

from __future__ import annotations

import torch

SETTINGS = {
    "mode": "exact",
    "iterations": 2,
    "learning_rate": 0.1,
    "start_percent": 0.0,
    "end_percent": 0.8,
    "chunk": 2,
    "budget_gib": 0.0,
}


def face_in(pack, box: tuple[float, float, float, float]):
    """An identity drawn at random, cut out of the photo at `box`."""
    identity = torch.randn(512, generator=torch.Generator().manual_seed(1))
    return pack.module("stableanimator_core.face.embed").FaceIdentity(identity, box, None, ())


def boxes_of_three_frames(pack) -> list[list]:
    """Where the faces are; the second frame shows none."""
    box = pack.module("stableanimator_core.hjb.regions").Box
    return [[box(8, 50, 10, 48)], [], [box(0, 40, 20, 64)]]


def recogniser_of(pack):
    """The random recogniser through its loader."""
    return pack.LoadFaceRecognizer.execute("face_recognizer.safetensors").args[0]
