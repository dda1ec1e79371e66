"""The shipped workflows in the real server, small: videos come out, caches hold, progress shows, cancel works."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import av
import demo_prompt
import pytest
import sample_inputs
from comfy_server import ComfyServer, install_pack, make_base
from workflow_api import to_api

RUN_HERE = (
    *("dancing-puppet", "animate-from-keypoints", "long-clip", "keep-the-face-hjb"),
    *("animate-anyone", "animate-anyone-photo"),
)
NEED_POSE_NETWORKS = ("align-and-preview-poses", "animate-from-video")  # see test_real_clip.py
FRAMES = {
    "dancing-puppet": 3,
    "animate-from-keypoints": 3,
    "long-clip": 18,
    "keep-the-face-hjb": 2,
    "animate-anyone": 26,  # two windows
    "animate-anyone-photo": 3,
}
ANYONE = "StableAnimator_LoadAnimateAnyoneModels"
SMALL_MODEL = "small demo model (puppets, 128x128)"
SIDE = 64


@pytest.fixture(scope="module")
def everything(comfy) -> dict:
    """What the server says about all its nodes."""
    return comfy.client.object_info()


@pytest.fixture(scope="module")
def mask(comfy, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A painted face: the random weights have no face detector."""
    path = sample_inputs.write_face_mask(tmp_path_factory.mktemp("mask") / "face.png")
    return comfy.client.upload(path, "runs_face.png")


def small(name: str, repository: Path, everything: dict, mask: str, frames: int, **settings: int) -> dict:
    """A shipped workflow as prompt, with few small frames and steps, on what is installed."""
    workflow = json.loads((repository / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    prompt = demo_prompt.use_installed_weights(to_api(workflow, everything), everything)
    prompt = demo_prompt.with_painted_face(prompt, mask)
    for node in nodes_of(prompt, ANYONE):  # the server of these tests has no other files of it
        files = {key: SMALL_MODEL for key in prompt[node]["inputs"] if key != "weight_dtype"}
        prompt[node]["inputs"] |= files
    sizes = {"width": SIDE, "height": SIDE, "steps": 2, "iterations": 1}
    sizes |= dict.fromkeys(("max_frames", "num_frames"), frames)
    return demo_prompt.with_settings(prompt, {**sizes, **settings})


def nodes_of(prompt: dict, class_type: str) -> list[str]:
    return [node for node, part in prompt.items() if part["class_type"] == class_type]


def video_of(client, result) -> av.container.InputContainer:
    (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    return av.open(io.BytesIO(client.view(file)))


def test_every_shipped_workflow_is_run_here_or_with_the_pose_networks(repository):
    shipped = {path.stem for path in (repository / "workflows").glob("*.json")}
    assert shipped == {*RUN_HERE, *NEED_POSE_NETWORKS}


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_shipped_workflow_makes_a_video_with_its_frames_and_rate(name, comfy, repository, everything, mask):
    prompt = small(name, repository, everything, mask, FRAMES[name])
    result = comfy.client.run(prompt)
    assert result.status == "success", result.error
    (create,) = nodes_of(prompt, "CreateVideo")
    with video_of(comfy.client, result) as video:
        stream = video.streams.video[0]
        assert stream.average_rate == prompt[create]["inputs"]["fps"]
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) == FRAMES[name]
    assert all(picture.shape[0] == SIDE for picture in pictures)
    assert any((picture != pictures[0]).any() for picture in pictures), "nothing moves"


@pytest.fixture(scope="module")
def tiny(comfy, repository, everything, mask) -> dict:
    """animate-from-keypoints with two frames, already run once."""
    prompt = small("animate-from-keypoints", repository, everything, mask, 2)
    assert comfy.client.run(prompt).status == "success"
    return prompt


def changed(prompt: dict, class_type: str, **values) -> dict:
    copy = json.loads(json.dumps(prompt))
    for node in nodes_of(copy, class_type):
        copy[node]["inputs"].update(values)
    return copy


def test_the_same_workflow_again_runs_no_node(comfy, tiny):
    result = comfy.client.run(tiny)
    assert result.status == "success"
    assert set(result.cached) == set(tiny)


def test_another_sampler_seed_runs_the_sampler_and_what_follows_only(comfy, tiny):
    result = comfy.client.run(changed(tiny, "KSampler", seed=time.time_ns() % 10**9))
    assert result.status == "success"
    after = ("KSampler", "StableAnimator_VAEDecodeTiled", "CreateVideo", "SaveVideo")
    assert set(tiny) - set(result.cached) == {node for name in after for node in nodes_of(tiny, name)}


def test_another_strength_of_the_adapter_loads_and_encodes_nothing_again(comfy, tiny):
    result = comfy.client.run(changed(tiny, "StableAnimator_IDAdapterUNet", strength=0.5))
    for name in ("LoadAnimatorModels", "FaceEmbed", "ArcFaceCLIPEncode", "ApplyPoseNet"):
        assert set(nodes_of(tiny, f"StableAnimator_{name}")) <= set(result.cached), name


def test_animate_anyone_looks_at_the_photo_once_and_is_not_loaded_again(comfy, repository, everything, mask):
    prompt = small("animate-anyone-photo", repository, everything, mask, 2)
    assert comfy.client.run(prompt).status == "success"
    assert set(comfy.client.run(prompt).cached) == set(prompt)
    result = comfy.client.run(changed(prompt, "StableAnimator_ApplyPoseGuider", strength=0.5))
    assert result.status == "success"
    again = set(prompt) - set(result.cached)
    kept = ("LoadAnimateAnyoneModels", "ReferenceNetEncode", "LoopedWindows", "DDIMTrailing", "PoseDraw")
    assert not again & {node for name in kept for node in nodes_of(prompt, f"StableAnimator_{name}")}
    assert again >= set(nodes_of(prompt, "SamplerCustom"))


def test_animate_anyone_hears_interrupt_while_it_samples(comfy, repository, everything, mask):
    prompt = small("animate-anyone-photo", repository, everything, mask, 2, steps=900)
    result = interrupted_while(comfy, prompt, "SamplerCustom")
    assert result.status == "interrupted"
    assert not result.files(*nodes_of(prompt, "SaveVideo"))


def test_a_changed_motion_file_is_read_again(comfy, tiny):
    def motion(shift: float) -> None:
        frames = json.loads(sample_inputs.MOTION.read_text())[:2]
        for frame in frames:
            for person in frame["people"]:
                points = person["pose_keypoints_2d"]
                person["pose_keypoints_2d"] = [
                    value + shift if place % 3 == 0 and points[place + 2] else value
                    for place, value in enumerate(points)
                ]
        (comfy.base / "input" / "changing_motion.json").write_text(json.dumps(frames))

    motion(0)
    comfy.client.object_info()  # newer servers look at the folder only then
    prompt = changed(tiny, "StableAnimator_LoadPoseKeypoints", file="changing_motion.json")
    assert comfy.client.run(prompt).status == "success"
    (loader,) = nodes_of(prompt, "StableAnimator_LoadPoseKeypoints")
    assert loader in comfy.client.run(prompt).cached
    motion(20)
    result = comfy.client.run(prompt)
    assert result.status == "success"
    assert loader not in result.cached


def test_progress_is_told_for_drawing_sampling_and_decoding(comfy, tiny):
    events: list[dict] = []
    prompt = changed(tiny, "KSampler", seed=time.time_ns() % 10**9, steps=3)
    prompt = changed(prompt, "StableAnimator_PoseDraw", face=False)
    prompt = changed(prompt, "StableAnimator_VAEDecodeTiled", frame_chunk=1, frame_overlap=0)
    assert comfy.client.run(prompt, on_event=events.append).status == "success"
    told: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if event["type"] == "progress":
            data = event["data"]
            told.setdefault(prompt[data["node"]]["class_type"], []).append((data["value"], data["max"]))
    assert told["KSampler"][-1] == (3, 3)
    assert told["StableAnimator_PoseDraw"][-1] == (2, 2)
    assert told["StableAnimator_VAEDecodeTiled"][-1] == (2, 2)


def interrupted_while(comfy, prompt: dict, class_type: str):
    """Interrupt as soon as this node tells its first progress; the prompt's result."""
    (node,) = nodes_of(prompt, class_type)
    began = threading.Event()

    def on_event(event: dict) -> None:
        if event["type"] == "progress" and event["data"]["node"] == node and not began.is_set():
            began.set()
            comfy.client.interrupt()

    result = comfy.client.run(prompt, on_event=on_event)
    assert began.is_set()
    return result


@pytest.mark.parametrize(
    ("class_type", "settings"),
    [
        ("KSampler", {"steps": 2000}),
        ("StableAnimator_VAEDecodeTiled", {"frame_chunk": 1, "frame_overlap": 0}),
    ],
)
def test_interrupt_ends_the_run_soon_and_the_server_runs_the_next(
    class_type, settings, comfy, repository, everything, mask, tiny
):
    prompt = small("animate-from-keypoints", repository, everything, mask, 16, every_nth=1)
    prompt = changed(prompt, "KSampler", seed=time.time_ns() % 10**9, steps=1)
    prompt = changed(prompt, class_type, **settings)
    result = interrupted_while(comfy, prompt, class_type)
    assert result.status == "interrupted"
    assert not result.files(*nodes_of(prompt, "SaveVideo"))
    following = comfy.client.run(changed(tiny, "KSampler", seed=time.time_ns() % 10**9))
    assert following.status == "success"


@pytest.fixture(scope="module")
def previewing(comfyui, demo_weights, tmp_path_factory) -> Iterator[ComfyServer]:
    """A server with live previews, which are off by default."""
    base = make_base(tmp_path_factory.mktemp("previewing"))
    install_pack(base / "custom_nodes")
    sample_inputs.put_into(base / "input")
    sample_inputs.write_face_mask(base / "input" / "runs_face.png")
    (base / "models" / "stableanimator").symlink_to(demo_weights, target_is_directory=True)
    arguments = ("--cpu", "--preview-method", "latent2rgb")
    with ComfyServer(Path(sys.executable), comfyui, base, arguments=arguments) as server:
        yield server


def test_live_previews_arrive_while_it_samples(previewing, repository, everything):
    """The socket's binary messages: a kind (1 is a preview), a format (1 is JPEG), the picture."""
    client = previewing.client
    prompt = small("animate-from-keypoints", repository, everything, "runs_face.png", 2, steps=4)
    pictures: list[bytes] = []

    async def follow() -> None:
        address = client.url.replace("http", "ws", 1) + f"/ws?clientId={client.id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            prompt_id = client.queue(prompt)
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    kind, form = struct.unpack(">II", message.data[:8])
                    if (kind, form) == (1, 1):
                        pictures.append(message.data[8:])
                elif message.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    data = event.get("data", {})
                    if (
                        event["type"] == "executing"
                        and data["node"] is None
                        and data["prompt_id"] == prompt_id
                    ):
                        return

    failures: list[BaseException] = []

    def in_own_loop() -> None:
        try:
            asyncio.run(asyncio.wait_for(follow(), timeout=120))
        except BaseException as error:  # noqa: BLE001  (shown by the assert below)
            failures.append(error)

    thread = threading.Thread(target=in_own_loop)  # the browser tests may have an event loop in this one
    thread.start()
    thread.join()
    assert not failures
    assert len(pictures) == 4
    assert all(picture.startswith(b"\xff\xd8") for picture in pictures)
