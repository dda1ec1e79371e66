"""A workflow for photos turned over to the small demo model: its entries in the menus, Demo Puppet for the files."""

from __future__ import annotations

import copy
from typing import Any

from demo_prompt import Prompt, menu, reads_a_photo

OURS = "StableAnimator_"
PUPPET, NODE = "demo_puppet", OURS + "DemoPuppet"
NEEDS_PHOTOS = (
    OURS + "DWPoseExtract"
)  # reads poses out of photos and videos, which drawn figures do not stand in for
SIDE, FRAMES, FRAMES_IN_WINDOWS = 128, 16, 40
_ENTRIES = ("small demo model", "none, the face mask")  # how the menus' entries for it begin
_INSTEAD = {
    ("LoadImage", "IMAGE"): "portrait",
    ("LoadImage", "MASK"): "face_mask",
    (OURS + "LoadPoseKeypoints", "poses"): "motion",
    (OURS + "LoadPoseKeypoints", "num_frames"): "num_frames",
}


def on_small_model(prompt: Prompt, object_info: dict[str, Any]) -> Prompt:
    """The prompt with the small model in every menu that offers it; a puppet instead of photo and motion file."""
    prompt = copy.deepcopy(prompt)
    for part in prompt.values():
        if part["class_type"].startswith(OURS):
            _choose(part["inputs"], object_info[part["class_type"]])
    return _with_puppet(prompt, object_info) if reads_a_photo(prompt) else prompt


def _choose(inputs: dict[str, Any], info: dict[str, Any]) -> None:
    for name in inputs:
        entries = [entry for entry in menu(info, name) if str(entry).startswith(_ENTRIES)]
        inputs[name] = entries[0] if entries else inputs[name]


def _with_puppet(prompt: Prompt, object_info: dict[str, Any]) -> Prompt:
    replaced = {node for node, part in prompt.items() if part["class_type"] in {kind for kind, _ in _INSTEAD}}
    kept = {node: part for node, part in prompt.items() if node not in replaced}
    for part in kept.values():
        for name, value in part["inputs"].items():
            if isinstance(value, list) and value[0] in replaced:
                part["inputs"][name] = [PUPPET, _slot(prompt[value[0]]["class_type"], value[1], object_info)]
        if part["class_type"] != OURS + "PoseDraw":  # lines as thin as a pixel are no skeletons
            part["inputs"] |= {name: SIDE for name in ("width", "height") if name in part["inputs"]}
    return {**kept, PUPPET: _puppet(kept, object_info)}


def _slot(kind: str, output: int, object_info: dict[str, Any]) -> int:
    """The puppet's output in place of another node's."""
    wanted = _INSTEAD[kind, object_info[kind]["output_name"][output]]
    return object_info[NODE]["output_name"].index(wanted)


def _puppet(prompt: Prompt, object_info: dict[str, Any]) -> dict[str, Any]:
    windows = any(part["class_type"] == OURS + "AnimationWindows" for part in prompt.values())
    inputs = {
        name: menu(object_info[NODE], name)[0] if menu(object_info[NODE], name) else spec[1]["default"]
        for name, spec in object_info[NODE]["input"]["required"].items()
    }
    inputs |= {"num_frames": FRAMES_IN_WINDOWS if windows else FRAMES}
    return {"class_type": NODE, "inputs": inputs, "_meta": {"title": "Demo Puppet"}}
