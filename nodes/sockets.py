"""Socket types. Standard ones wherever they fit; names of our own are public API and never change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from comfy_api.latest import io

PoseKeypoint = io.Custom("POSE_KEYPOINT")
PoseNetSocket = io.Custom("STABLEANIMATOR_POSE_NET")
FaceEncoderSocket = io.Custom("STABLEANIMATOR_FACE_ENCODER")
ReferenceNetSocket = io.Custom("STABLEANIMATOR_REFERENCE_NET")
PoseGuiderSocket = io.Custom("STABLEANIMATOR_POSE_GUIDER")
FaceSocket = io.Custom("STABLEANIMATOR_FACE")
FaceRecogniserSocket = io.Custom("STABLEANIMATOR_FACE_RECOGNIZER")
HJBSocket = io.Custom("STABLEANIMATOR_HJB")
FaceBoxesSocket = io.Custom("STABLEANIMATOR_FACE_BOXES")
"""Carries the core's `FaceBoxes`: per frame a list of boxes in pixels of the video, empty without a face."""


def expect(value: Any, kind: type, what: str, source: str) -> Any:
    """`value`, refused if another pack's node made it.

    Raises:
        InputError: not of `kind`; names the node that makes one.
    """
    from ..stableanimator_core.errors import InputError

    if not isinstance(value, kind):
        raise InputError(what, f"is a {type(value).__name__}", f"connect the output of {source}")
    return value


def one_of(name: str, value: Any, options: Iterable[str]) -> Any:
    """`value`, refused if the menu `name` does not have it; the server does not check menus itself.

    Raises:
        InputError: none of `options`.
    """
    from ..stableanimator_core.errors import InputError

    if value not in (known := list(options)):
        raise InputError(name, f"is '{value}'", f"choose one of {', '.join(known)}")
    return value
