"""A small prompt that works, for tests that spoil one thing in it; and that the server outlives them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import demo_prompt
import pytest
import sample_inputs
from tiny_prompt import SIDE, Prompt, inputs, node
from workflow_api import to_api


@pytest.fixture(scope="module")
def good(comfy, repository, tmp_path_factory) -> Iterator[Prompt]:
    """animate-from-keypoints in small: two frames, two steps, the face painted; runs once more at the end."""
    everything = comfy.client.object_info()
    workflow = json.loads((repository / "workflows/animate-from-keypoints.json").read_text(encoding="utf-8"))
    mask = sample_inputs.write_face_mask(tmp_path_factory.mktemp("mask") / "face.png")
    prompt = demo_prompt.use_installed_weights(to_api(workflow, everything), everything)
    prompt = demo_prompt.with_painted_face(prompt, comfy.client.upload(mask, "bad_input_face.png"))
    prompt = demo_prompt.with_settings(prompt, {"width": SIDE, "height": SIDE, "max_frames": 2, "steps": 2})
    window = {"model": inputs(prompt, "KSampler")["model"], "window_size": 16, "overlap": 4}
    prompt["windows"] = node("StableAnimator_AnimationWindows", **window)
    inputs(prompt, "KSampler")["model"] = ["windows", 0]
    assert comfy.client.run(prompt).status == "success"
    yield prompt
    following = json.loads(json.dumps(prompt))  # after all that the tests have sent, sampler included
    inputs(following, "KSampler")["seed"] = time.time_ns() % 10**9
    assert comfy.client.run(following).status == "success"


@pytest.fixture
def alive_afterwards(comfy):
    """After every test the server answers and has nothing left to do."""
    yield
    comfy.check_alive()
    queue = comfy.client.get("/queue").json()
    assert queue["queue_running"] == queue["queue_pending"] == []
