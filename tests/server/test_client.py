"""The client that the demo and the tests share, against the real server with ComfyUI's own nodes."""

from __future__ import annotations

import threading
import time

import pytest
from comfy_client import PromptRefused


def image_prompt(text: str, batch: int = 1) -> dict:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": batch, "color": 255},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": text}},
    }


def test_a_prompt_runs_and_its_files_can_be_fetched(comfy):
    result = comfy.client.run(image_prompt("client", batch=3))
    assert result.status == "success"
    files = result.files("2")
    assert len(files) == 3
    assert comfy.client.view(files[0]).startswith(b"\x89PNG")


def test_events_of_a_run_are_heard(comfy):
    events = []
    comfy.client.run(image_prompt(f"events{time.time()}"), on_event=events.append)
    assert {"execution_start", "executing"} <= {event["type"] for event in events}


def test_a_second_run_of_the_same_prompt_is_taken_from_the_cache(comfy):
    prompt = image_prompt("cache", batch=2)
    comfy.client.run(prompt)
    assert "1" in comfy.client.run(prompt).cached


def test_a_wrong_value_is_refused_with_the_servers_reason(comfy):
    prompt = image_prompt("wrong")
    prompt["1"]["inputs"]["width"] = -1
    with pytest.raises(PromptRefused, match="width"):
        comfy.client.queue(prompt)


def test_a_missing_file_is_refused_before_anything_runs(comfy):
    prompt = image_prompt("missing")
    prompt["3"] = {"class_type": "LoadImage", "inputs": {"image": "no_such_picture.png"}}
    prompt["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "missing"}}
    with pytest.raises(PromptRefused, match="no_such_picture"):
        comfy.client.queue(prompt)


def test_a_cancelled_prompt_is_gone_whether_it_runs_or_waits(comfy):
    first, second = (comfy.client.queue(image_prompt(f"cancel{i}{time.time()}", batch=400)) for i in range(2))
    threading.Event().wait(0.2)
    comfy.client.cancel(second)
    comfy.client.cancel(first)
    assert not comfy.client.is_queued(first)
    assert not comfy.client.is_queued(second)


def test_an_uploaded_file_lies_in_the_input_folder(comfy, tmp_path):
    (tmp_path / "motion.json").write_text("[]")
    name = comfy.client.upload(tmp_path / "motion.json", "uploaded_motion.json")
    assert (comfy.base / "input" / name).read_text() == "[]"
