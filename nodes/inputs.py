"""Inputs that several nodes have, said once."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import folders, small
from .base import advanced

CHANNELS = {"BGR (as trained)": "bgr", "RGB (as the official script)": "rgb"}


def size_inputs(what: str, *, trained: bool = False) -> list[Any]:
    """Width and height in pixels of `what`, multiples of 64."""
    hints = (" Trained: 512, 576.", " Trained: 512, 1024.") if trained else ("", "")
    return [
        io.Int.Input(
            name,
            default=512,
            min=64,
            max=4096,
            step=64,
            tooltip=f"{name.capitalize()} of {what} in pixels.{hint}",
        )
        for name, hint in zip(("width", "height"), hints, strict=True)
    ]


def percent_inputs(what: str) -> list[Any]:
    """The part of the sampling in which `what` leads, as shares 0..1."""
    return [
        advanced(
            io.Float.Input(
                name,
                default=default,
                min=0.0,
                max=1.0,
                step=0.001,
                round=False,
                tooltip=f"Share of the sampling after which {what} {verb}.",
            )
        )
        for name, default, verb in (
            ("start_percent", 0.0, "begins to lead"),
            ("end_percent", 1.0, "leads no more"),
        )
    ]


def pose_inputs() -> list[Any]:
    """Skeleton pictures, how strongly and when they lead."""
    return [
        io.Image.Input("poses", tooltip="Skeleton pictures on black, one for each frame, from Pose Draw."),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How strongly the skeleton leads. 1 is what the model was trained on, 0 switches it off.",
        ),
        *percent_inputs("the skeleton"),
    ]


def weights_input(name: str, files: list[str], tooltip: str) -> Any:
    """The combo of a weight file: `files`, then the small demo model, which is the default until a U-Net is there.

    The U-Net decides for all of them, so that nodes just added belong together whatever else lies in the folders.
    """
    return with_small_model(name, files, tooltip, there=small.installed(), own=folders.unet_is_installed())


def with_small_model(name: str, files: list[str], tooltip: str, *, there: bool, own: bool) -> Any:
    """A combo of `files` and, if `there`, the small demo model, the default unless the user has files of his `own`."""
    return io.Combo.Input(
        name,
        options=[*files, small.ENTRY] if there else files,
        default=small.ENTRY if there and not own else None,
        tooltip=tooltip,
    )


def recogniser_input(official: str, endings: tuple[str, ...], tooltip: str) -> Any:
    """The combo of the ArcFace file."""
    files = folders.file_choices(folders.FACE_FOLDERS, official, "glintr100", "recognizer", endings=endings)
    return weights_input("recognizer", files, tooltip)


def face_detector_input(when: str, *more: str) -> Any:
    """The combo of the SCRFD file, and `more` entries; `when` says when it is opened."""
    files = folders.file_choices(
        folders.FACE_FOLDERS, "scrfd_10g_bnkps.onnx", "scrfd", "det_", endings=folders.ONNX_ENDINGS
    )
    return io.Combo.Input(
        "detector",
        options=[*files, *more],
        tooltip=f"Face detector: scrfd_10g_bnkps.onnx of antelopev2 (17 MB). {when}",
    )
