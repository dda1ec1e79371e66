"""Face Embed: who the person in the photo is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.preprocess import check_pictures, from_uint8, to_uint8
from . import folders, small
from .base import CATEGORY, AnimatorNode, advanced, say
from .inputs import CHANNELS, face_detector_input, recogniser_input
from .managed import ManagedNetwork
from .sockets import FaceSocket

_NO_FACE = ["error", "without identity", "official zeros"]
_CHOICES = ["largest", "central", "index"]
NO_DETECTOR = "none, the face mask says where"


class FaceEmbed(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_FaceEmbed",
            display_name="Face Embed",
            category=f"{CATEGORY}/face",
            description="Finds the face in the photo and turns it into the identity the animation keeps (ArcFace).",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The reference photo, or several of the same person: they are averaged."
                ),
                recogniser_input(
                    "glintr100.onnx",
                    folders.ONNX_ENDINGS + folders.TORCH_ENDINGS,
                    "ArcFace: glintr100.onnx of antelopev2 (261 MB), or its torch form glintr100_torch.pth. The small "
                    "demo model has its own.",
                ),
                face_detector_input(
                    "Not opened if a face mask says where the face is and no detector is installed, nor for the small "
                    "demo model's masks.",
                    NO_DETECTOR,
                ),
                io.Combo.Input(
                    "choice",
                    options=_CHOICES,
                    default="largest",
                    tooltip="Which face, if the photo shows several; index counts from left to right.",
                ),
                advanced(
                    io.Int.Input(
                        "index",
                        default=0,
                        min=0,
                        max=99,
                        tooltip="The face's number from the left, from 0, for choice index.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "channels",
                        options=list(CHANNELS),
                        default="BGR (as trained)",
                        tooltip="Colour order handed to the face networks. The official inference script swaps red and "
                        "blue by mistake; choose RGB to reproduce it.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "no_face",
                        options=_NO_FACE,
                        default="error",
                        tooltip="If no face is found: stop (default), go on without identity, or with zeros as the "
                        "official code does silently.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "face_box",
                        default="",
                        optional=True,
                        tooltip="The face as numbers instead of a mask: left, top, right, bottom in pixels of the "
                        "photo. Empty: the mask or the detector.",
                    )
                ),
                io.Mask.Input(
                    "face_mask",
                    optional=True,
                    tooltip="Paint over the face (Open in MaskEditor) to say where it is, instead of the detector's "
                    "choice. Nothing painted: the detector looks.",
                ),
            ],
            outputs=[
                FaceSocket.Output(display_name="face", tooltip="The identity. Next: ArcFace + CLIP Encode."),
                io.Image.Output(display_name="preview", tooltip="The photo with the face that was used."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        recognizer: str,
        detector: str,
        choice: str,
        index: int,
        channels: str,
        no_face: str,
        face_mask: torch.Tensor | None = None,
        face_box: str = "",
    ) -> io.NodeOutput:
        from ..stableanimator_core.face.embed import embed_face

        _check_choices(choice, channels, no_face)
        photos = to_uint8(check_pictures(image, "image"))
        corners = _typed(face_box) or _corners(_painted(face_mask, photos))
        opened, family = _open_recogniser(recognizer)
        as_painted = family == small.SMALL and corners is not None  # how the small one saw faces in training
        face = embed_face(
            list(photos),
            opened,
            None if as_painted else _open_detector(detector, needed=corners is None),
            channels=CHANNELS[channels],
            choice=index if choice == "index" else choice,
            corners=corners,
            no_face=no_face,
        )
        for warning in () if as_painted else face.warnings:
            say(cls, warning)
        face = replace(face, family=family)
        return io.NodeOutput(face, from_uint8(_marked(photos[0], face.corners)[None]))


def _check_choices(choice: str, channels: str, no_face: str) -> None:
    allowed = {"choice": (choice, _CHOICES), "channels": (channels, CHANNELS), "no_face": (no_face, _NO_FACE)}
    for name, (value, options) in allowed.items():
        if value not in options:
            raise InputError(name, f"is '{value}'", f"choose one of {', '.join(options)}")


def _open_detector(name: str, *, needed: bool):
    from ..stableanimator_core.errors import WeightsError
    from ..stableanimator_core.face.analysis import FaceDetector

    if name == NO_DETECTOR and needed:
        raise InputError(
            "detector", f"is '{name}', and no face is painted", "connect a face mask, or choose a detector"
        )
    if name == NO_DETECTOR:
        return None
    try:
        path = folders.resolve(name, folders.FACE_FOLDERS, "detector")
    except WeightsError:
        if needed:
            raise
        return None
    return FaceDetector(path)


def _open_recogniser(name: str):
    """ArcFace on onnxruntime, or in torch under ComfyUI's memory manager, which give the same numbers; its family."""
    from ..stableanimator_core.face.recognisers import OnnxRecogniser, TorchRecogniser
    from ..stableanimator_core.weights import load

    path = folders.resolve(name, folders.FACE_FOLDERS, "recognizer")
    if path.suffix.lower() == ".onnx":
        return OnnxRecogniser(path), small.family_of_recogniser(name, None)
    network = load.load_face_recognizer(path, dtype=torch.float32)
    return TorchRecogniser(ManagedNetwork(network)), small.family_of_recogniser(name, network)


def _typed(text: str) -> tuple[float, float, float, float] | None:
    """Four numbers from `face_box`; None if it is empty."""
    if not text.strip():
        return None
    try:
        left, top, right, bottom = (float(number) for number in text.replace(",", " ").split())
    except ValueError as error:
        raise InputError("face_box", f"is '{text}'", "give four numbers: left, top, right, bottom") from error
    return left, top, right, bottom


def _corners(mask: np.ndarray | None) -> tuple[float, float, float, float] | None:
    from ..stableanimator_core.face.embed import corners_of_mask

    return None if mask is None else corners_of_mask(mask)


def _painted(mask: torch.Tensor | None, photos: np.ndarray) -> np.ndarray | None:
    """The painted MASK [H W] at the size of the photo; None if nothing is painted, as LoadImage gives it."""
    if mask is None or not (mask > 0.5).any():
        return None
    height, width = photos.shape[1:3]
    if tuple(mask.shape[-2:]) != (height, width):
        raise InputError(
            "face_mask",
            f"is {mask.shape[-1]} x {mask.shape[-2]}, the photo is {width} x {height}",
            "paint the mask on the same photo",
        )
    return mask.reshape(-1, height, width).amax(0).cpu().numpy()


def _marked(photo: np.ndarray, corners: tuple[float, ...] | None) -> np.ndarray:
    if corners is None:
        return photo
    picture = Image.fromarray(photo)
    ImageDraw.Draw(picture).rectangle(
        list(corners), outline=(0, 220, 90), width=max(2, photo.shape[1] // 200)
    )
    return np.array(picture)
