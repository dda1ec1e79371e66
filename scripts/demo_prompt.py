"""Small changes to a prompt in API form: files that are here, and pictures of what flows in it."""

from __future__ import annotations

import copy
from typing import Any

Prompt = dict[str, dict[str, Any]]

PHOTO, POSES, RESULT = "demo_photo", "demo_poses", "demo_result"
POSE_DRAW = "StableAnimator_PoseDraw"
FACE_EMBED = "StableAnimator_FaceEmbed"
REFERENCE_ENCODE = "StableAnimator_ReferenceNetEncode"


class DemoError(RuntimeError):
    """The demo cannot go on; the message says what to do."""


def use_installed_weights(prompt: Prompt, object_info: dict[str, Any]) -> Prompt:
    """Where a menu of our nodes names a file that is not installed, take the first that is."""
    prompt = copy.deepcopy(prompt)
    for part in prompt.values():
        if not part["class_type"].startswith("StableAnimator_"):
            continue
        for name, value in part["inputs"].items():
            options = menu(object_info[part["class_type"]], name)
            if isinstance(value, str) and options and value not in options:
                part["inputs"][name] = options[0]
    return prompt


def menu(info: dict[str, Any], name: str) -> list[str]:
    """The entries of a combo input; empty for every other input."""
    for part in ("required", "optional"):
        spec = (info["input"].get(part) or {}).get(name)
        if spec is not None:
            options = (
                spec[0] if isinstance(spec[0], list) else (spec[1] if len(spec) > 1 else {}).get("options")
            )
            return options if isinstance(options, list) else []
    return []


def use_inputs(prompt: Prompt, portrait: str, motion: str) -> Prompt:
    """Let LoadImage and whatever reads a .json read these uploaded files."""
    prompt = copy.deepcopy(prompt)
    for part in prompt.values():
        for name, value in part["inputs"].items():
            if part["class_type"] == "LoadImage" and name == "image":
                part["inputs"][name] = portrait
            elif isinstance(value, str) and value.endswith(".json"):
                part["inputs"][name] = motion
    return prompt


def reads_a_photo(prompt: Prompt) -> bool:
    """False if the workflow draws its own person."""
    return any(part["class_type"] == "LoadImage" for part in prompt.values())


def with_painted_face(prompt: Prompt, mask: str) -> Prompt:
    """Let Face Embed take a photo's face from a painted mask: random weights have no face detector."""
    if not reads_a_photo(prompt) or all(part["class_type"] != FACE_EMBED for part in prompt.values()):
        return prompt
    prompt = copy.deepcopy(prompt)
    for part in prompt.values():
        if part["class_type"] == FACE_EMBED:
            part["inputs"]["face_mask"] = ["demo_face_mask", 0]
    inputs = {"image": mask, "channel": "red"}
    loader = {"class_type": "LoadImageMask", "inputs": inputs, "_meta": {"title": "Painted face"}}
    return {**prompt, "demo_face_mask": loader}


def with_settings(prompt: Prompt, settings: dict[str, int | None]) -> Prompt:
    """Every input of these names that holds a number gets the new one; None leaves it."""
    prompt = copy.deepcopy(prompt)
    for part in prompt.values():
        for name, value in settings.items():
            if value is not None and isinstance(part["inputs"].get(name), int):
                part["inputs"][name] = value
    return prompt


def with_pictures(prompt: Prompt) -> Prompt:
    """Also save the photo that is animated, the skeletons, and the frames that go into the video.

    Raises:
        DemoError: the workflow animates no photo, makes no video, or draws no skeleton.
    """
    readers = (FACE_EMBED, REFERENCE_ENCODE)
    photo = next((part["inputs"]["image"] for part in prompt.values() if part["class_type"] in readers), None)
    frames = next(
        (part["inputs"]["images"] for part in prompt.values() if part["class_type"] == "CreateVideo"), None
    )
    drawn = next((node for node, part in prompt.items() if part["class_type"] == POSE_DRAW), None)
    if photo is None or frames is None or drawn is None:
        needed = f"{FACE_EMBED} or {REFERENCE_ENCODE}, {POSE_DRAW} and CreateVideo"
        raise DemoError(f"the workflow needs the nodes {needed} for the demo's pictures")
    sources = {PHOTO: photo, POSES: [drawn, 0], RESULT: frames}
    return {**prompt, **{name: save_images(images, name) for name, images in sources.items()}}


def rate(prompt: Prompt, otherwise: float = 10.0) -> float:
    """Frames a second of the video; `otherwise` if it is the source video's."""
    given = (part["inputs"].get("fps") for part in prompt.values() if part["class_type"] == "CreateVideo")
    return next((float(fps) for fps in given if isinstance(fps, (int, float))), otherwise)


def save_images(images: list, prefix: str) -> dict[str, Any]:
    return {
        "class_type": "SaveImage",
        "inputs": {"images": images, "filename_prefix": prefix},
        "_meta": {"title": prefix},
    }
