"""ArcFace vectors of reference frames, by whatever networks are at hand.

Official: insightface on the picture at training size, largest face, raw vector, zeros if there is none
(`animation_dataset.py`, Francis-Rings/StableAnimator @ 020e7f2).
Axes: n pictures, H W pixels, e identity (512).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..face.analysis import FaceDetector, for_insightface
from ..face.embed import corners_of_mask, embed_face
from ..face.recognisers import WIDTH, OnnxRecogniser, Recogniser, TorchRecogniser
from .settings import Identity


class Identities(Protocol):
    """Pictures and their face masks to identities."""

    def embed(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        """uint8 [H W 3] RGB and float [H W] each, to float32 [n e]; zeros where there is no face."""
        ...


def open_identities(identity: Identity, device: torch.device | str = "cpu") -> Identities:
    """The provider that the settings name; torch networks on `device`.

    Raises:
        WeightsError: a network's file is damaged or another model.
    """
    if identity.provider == "zeros":
        return Nobody()
    recogniser = open_recogniser(identity.recogniser, device)
    if identity.provider == "mask":
        return FromMasks(recogniser)
    return FromDetector(recogniser, FaceDetector(identity.detector or ""))


def open_recogniser(path: Path | None, device: torch.device | str) -> Recogniser:
    """ArcFace on onnxruntime or in torch, by the file's ending."""
    from ..weights.load import load_face_recognizer

    path = path or Path()
    if path.suffix.lower() == ".onnx":
        return OnnxRecogniser(path)
    return TorchRecogniser(load_face_recognizer(path, dtype=torch.float32).to(device))


class Nobody:
    """No identity: training without faces."""

    def embed(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        """See `Identities`."""
        return torch.zeros(len(pictures), WIDTH)


class FromDetector:
    """The official way: the largest face that the detector sees, aligned by its landmarks."""

    def __init__(self, recogniser: Recogniser, detector: FaceDetector):
        self.recogniser, self.detector = recogniser, detector

    def embed(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        """See `Identities`; the masks are not looked at."""
        found = [
            embed_face([picture], self.recogniser, self.detector, no_face="official zeros")
            for picture in pictures
        ]
        return torch.stack([face.identity for face in found if face.identity is not None])


class FromMasks:
    """The face where its mask says, not aligned: as an animation whose face is painted or given as a box."""

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser

    def embed(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        """See `Identities`; masks have the pictures' sizes. A mask that is empty or full shows no face."""
        result = torch.zeros(len(pictures), WIDTH)
        crops, places = [], []
        for place, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
            painted = mask > 0.5
            if painted.any() and not painted.all():
                face = embed_face([picture], _CropsOnly(), corners=corners_of_mask(mask))
                crops.append(for_insightface(face.crop, "bgr"))
                places.append(place)
        if crops:
            result[places] = self.recogniser.embed(np.stack(crops))
        return result


class _CropsOnly:
    """Stands in for the network where only the crop is wanted, so that many go through the network at once."""

    provider = "none"

    def embed(self, crops: np.ndarray) -> Tensor:
        return torch.zeros(len(crops), WIDTH)
