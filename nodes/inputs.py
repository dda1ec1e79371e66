"""Inputs that several nodes have, said once."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import folders
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


def face_detector_input(when: str) -> Any:
    """The combo of the SCRFD file; `when` says when it is opened."""
    return io.Combo.Input(
        "detector",
        options=folders.file_choices(
            folders.FACE_FOLDERS, "scrfd_10g_bnkps.onnx", "scrfd", "det_", endings=folders.ONNX_ENDINGS
        ),
        tooltip=f"Face detector: scrfd_10g_bnkps.onnx of antelopev2 (17 MB). {when}",
    )
