"""Socket types. Standard ones wherever they fit; names of our own are public API and never change."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

PoseKeypoint = io.Custom("POSE_KEYPOINT")
PoseNetSocket = io.Custom("STABLEANIMATOR_POSE_NET")
FaceEncoderSocket = io.Custom("STABLEANIMATOR_FACE_ENCODER")
FaceSocket = io.Custom("STABLEANIMATOR_FACE")


def expect(value: Any, kind: type, what: str, source: str) -> Any:
    """`value`, refused if another pack's node made it.

    Raises:
        InputError: not of `kind`; names the node that makes one.
    """
    from ..stableanimator_core.errors import InputError

    if not isinstance(value, kind):
        raise InputError(what, f"is a {type(value).__name__}", f"connect the output of {source}")
    return value
