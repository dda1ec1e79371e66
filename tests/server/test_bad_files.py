"""Bad files in the real server: broken, foreign or dangerous ones are named, and no name leads out of its folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import sample_inputs
import torch
from tiny_prompt import OURS, Prompt, node, refused, setting

pytestmark = pytest.mark.usefixtures("alive_afterwards")


@pytest.fixture
def weights(comfy):
    """models/stableanimator; what a test adds is removed."""
    folder = (comfy.base / "models" / "stableanimator").resolve()
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


class Dangerous:
    """Pickled, it is a command that unpickling would run."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


BROKEN = {
    "empty": (lambda path, good_bytes: path.touch(), "is empty (0 bytes)"),
    "truncated": (
        lambda path, good_bytes: path.write_bytes(good_bytes[: len(good_bytes) // 2]),
        "is cut short",
    ),
    "foreign": (lambda path, good_bytes: path.write_bytes(b"a text" * 99), "is not a weight file"),
    "web page": (lambda path, good_bytes: path.write_bytes(b"<!DOCTYPE html>" + b" " * 99), "is a web page"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["unet", "pose_net", "face_encoder"])
def test_broken_checkpoints_are_named(name, kind, comfy, good, weights):
    breaking, words = BROKEN[kind]
    breaking(weights / f"{kind}.safetensors", (weights / f"{name}.safetensors").read_bytes())
    message = refused(comfy, good, setting("LoadAnimatorModels", **{name: f"{kind}.safetensors"}))
    assert message.startswith("Load Animator Models - ")
    assert f"{kind}.safetensors" in message
    assert words in message


def test_another_models_checkpoint_is_named(comfy, good):
    message = refused(comfy, good, setting("LoadAnimatorModels", unet="face_encoder.safetensors"))
    assert "Load Animator Models - " in message
    assert "looks like" in message
    assert "Choose unet.pth for this input" in message


def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(comfy, good, weights, tmp_path):
    proof = tmp_path / "it_ran"
    torch.save({"weight": torch.zeros(2), "trap": Dangerous(proof)}, weights / "trap.pth")
    message = refused(comfy, good, setting("LoadAnimatorModels", unet="trap.pth"))
    assert "trap.pth" in message
    assert "nothing of it was run" in message
    assert not proof.exists()


# Files named by inputs


ESCAPES = [
    "../../etc/passwd",
    "/etc/passwd",
    "../secret.json",
    "sub/../../secret.json",
    "shipped: ../../x.json",
    "",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_motion_is_read_from_outside_the_input_folder(name, comfy, good):
    (comfy.base / "secret.json").write_text(sample_inputs.MOTION.read_text())
    message = refused(comfy, good, setting("LoadPoseKeypoints", file=name))
    assert f"'{name}' is not in ComfyUI's input folder" in message


@pytest.mark.parametrize("name", ["unet", "pose_net", "face_encoder", "svd"])
@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd"])
def test_no_weights_are_read_from_outside_the_model_folders(name, path, comfy, good):
    (comfy.base / "secret").write_bytes(b"secret")
    message = refused(comfy, good, setting("LoadAnimatorModels", **{name: path}))
    assert f"Load Animator Models - {name}: '{path}' was not found" in message


@pytest.mark.parametrize("prefix", ["../evil", "/tmp/evil_poses", "sub/../../evil", "../../../../evil"])
def test_no_motion_is_written_outside_the_output_folder(prefix, comfy, good):
    def change(prompt: Prompt) -> None:
        (loader,) = [
            name for name, part in prompt.items() if part["class_type"] == OURS + "LoadPoseKeypoints"
        ]
        prompt["save"] = node(OURS + "SavePoseKeypoints", poses=[loader, 0], filename_prefix=prefix)

    message = refused(comfy, good, change)
    assert f"Save Pose Keypoints - filename_prefix: '{prefix}' leaves the output folder" in message
    assert not list(comfy.base.parent.glob("evil*"))
    assert not list(comfy.base.glob("evil*"))
    assert not list(Path("/tmp").glob("evil_poses*"))


def a_motion(**changes) -> str:
    frame = json.loads(sample_inputs.MOTION.read_text())[0]
    frame["people"][0].update(changes)
    return json.dumps([frame])


MOTIONS = {
    "truncated": (lambda: sample_inputs.MOTION.read_text()[:3000], "JSON"),
    "no json": (lambda: "once upon a time", "JSON"),
    "empty": (lambda: "", "JSON"),
    "animal": (lambda: a_motion(pose_keypoints_2d=[1.0] * 51), "17-joint order of COCO or of animals"),
    "something else": (lambda: json.dumps({"nodes": [], "links": []}), "OpenPose JSON"),
    "a number too few": (lambda: a_motion(pose_keypoints_2d=[1.0] * 53), "has 53 numbers"),
    "words for numbers": (lambda: a_motion(pose_keypoints_2d=["left"] * 54), "not a number"),
    "nan": (lambda: a_motion(pose_keypoints_2d=[float("nan")] * 54), "holds nan"),
    "nobody": (lambda: "[]", "frame"),
}


@pytest.mark.parametrize("kind", MOTIONS)
def test_broken_motion_files_are_refused(kind, comfy, good):
    text, words = MOTIONS[kind]
    path = comfy.base / "input" / "broken_motion.json"
    path.write_text(text())
    comfy.client.object_info()  # the menu is made anew
    try:
        message = refused(comfy, good, setting("LoadPoseKeypoints", file=path.name))
    finally:
        path.unlink()
    assert message.startswith("Load Pose Keypoints - ")
    assert "broken_motion.json" in message
    assert words in message


def test_a_huge_motion_file_is_refused_without_being_read(comfy, good):
    path = comfy.base / "input" / "huge_motion.json"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)  # takes no room on the disk
    comfy.client.object_info()
    began = time.monotonic()
    try:
        message = refused(comfy, good, setting("LoadPoseKeypoints", file=path.name))
    finally:
        path.unlink()
    assert "huge_motion.json" in message
    assert "MiB" in message
    assert time.monotonic() - began < 10
