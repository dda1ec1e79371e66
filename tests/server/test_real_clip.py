"""A real video of people goes the whole way, in a real server: frames, rate and sound come out right.

Detectors are stand-ins that see one standing figure, the models are small and random: shown is that nothing
gets lost between the video that goes in and the one that comes out.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from workflow_api import to_api

KEPT, FRAMES, SIDE = 20, 8, 128
FPS, RATE = 24, 48_000  # pictures, and samples of sound, a second
TONE = 440.0
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


@pytest.fixture(scope="module")
def detectors(comfy) -> Path:
    """Stand-ins where controlnet_aux and insightface keep the real files."""
    import figure_standin
    import standins

    poses, faces = comfy.base / "models/controlnet_aux/DWPose", comfy.base / "models/insightface/antelopev2"
    faces.mkdir(parents=True)
    figure_standin.write_detectors(poses)
    standins.scrfd(faces / "scrfd_10g_bnkps.onnx")
    standins.arcface(faces / "glintr100.onnx")
    yield
    shutil.rmtree(poses.parent)
    shutil.rmtree(faces)


@pytest.fixture(scope="module")
def with_tone(real_clip, comfy) -> str:
    """The clip's first frames, at an unusual rate and with a tone; its name in the input folder."""
    import av

    path = comfy.base / "input" / "people_with_tone.mkv"
    with av.open(str(real_clip)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        copied = target.add_stream_from_template(video)
        sound = target.add_stream("aac", rate=RATE)
        sound.layout = "mono"
        for number, packet in enumerate(itertools.islice(source.demux(video), KEPT)):
            packet.stream, packet.time_base = copied, Fraction(1, FPS)
            packet.pts = packet.dts = number
            packet.duration = 1
            target.mux(packet)
        wave = 0.5 * np.sin(2 * np.pi * TONE * np.arange(RATE) / RATE)
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    yield path.name
    path.unlink()


@pytest.fixture(scope="module")
def object_info(comfy, detectors) -> dict:
    return comfy.client.object_info()


def prompt_of(name: str, object_info: dict, video: str) -> dict:
    """The shipped workflow with small sizes, few frames, few steps and the files that are here."""
    from demo_prompt import use_installed_weights

    prompt = to_api(json.loads((WORKFLOWS / f"{name}.json").read_text()), object_info)
    small = {"ImageScale": {"width": SIDE, "height": SIDE}, "KSampler": {"steps": 2}}
    small |= {"ImageFromBatch": {"length": FRAMES}, "LoadVideo": {"file": video}}
    small |= {"StableAnimator_AnimationWindows": {"window_size": 6, "overlap": 2}}
    for part in prompt.values():
        part["inputs"] |= small.get(part["class_type"], {})
    return use_installed_weights(prompt, object_info)


def inputs_of(prompt: dict, class_type: str) -> dict:
    return next(part["inputs"] for part in prompt.values() if part["class_type"] == class_type)


def node_of(prompt: dict, title: str) -> str:
    return next(node for node, part in prompt.items() if part["_meta"]["title"] == title)


def paint_the_face(prompt: dict) -> dict:
    """The mask an artist paints, since the stand-in detector knows no faces."""
    import sample_inputs

    portrait = inputs_of(prompt, "StableAnimator_FaceEmbed")
    mask = {"class_type": "LoadImageMask", "inputs": {"image": sample_inputs.FACE_MASK, "channel": "red"}}
    portrait["face_mask"] = ["mask", 0]
    return {**prompt, "mask": {**mask, "_meta": {"title": "mask"}}}


@pytest.fixture(scope="module")
def made(comfy, object_info, with_tone):
    """animate-from-video run once: its prompt and its result."""
    import sample_inputs

    sample_inputs.write_face_mask(comfy.base / "input" / sample_inputs.FACE_MASK)
    prompt = paint_the_face(prompt_of("animate-from-video", object_info, with_tone))
    result = comfy.client.run(prompt, timeout=300)
    assert result.status == "success", result.error
    return prompt, result


def test_frame_count_rate_and_size_of_the_video_are_those_of_the_clip(comfy, made):
    import av

    prompt, result = made
    (file,) = result.files(node_of(prompt, "Save Video"))
    with av.open(io.BytesIO(comfy.client.view(file))) as video:
        stream = video.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert stream.average_rate == FPS
        assert len(pictures) == FRAMES
        assert pictures[0].shape == (SIDE, SIDE, 3)


def test_the_sound_is_the_clips_and_ends_with_the_video(comfy, made):
    import av

    prompt, result = made
    (file,) = result.files(node_of(prompt, "Save Video"))
    with av.open(io.BytesIO(comfy.client.view(file))) as video:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
        rate = video.streams.audio[0].rate
    assert rate == RATE
    assert len(sound) / rate == pytest.approx(FRAMES / FPS, abs=0.05)
    middle = sound[len(sound) // 4 : len(sound) // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), n=RATE))
    assert abs(int(spectrum.argmax()) - TONE) < 5
    assert 0.2 < np.abs(middle).max() < 0.8


def test_overlay_and_reports_are_shown_on_the_way(comfy, made):
    from PIL import Image

    prompt, result = made
    (sheet,) = result.files(
        next(node for node, part in prompt.items() if part["class_type"] == "PreviewImage")
    )
    with Image.open(io.BytesIO(comfy.client.view(sheet))) as picture:
        assert picture.size == (3 * SIDE, SIDE)
    verdict = result.outputs[node_of(prompt, "Does it fit?")]["text"][0]
    assert verdict.startswith(("FIT OK", "CHECK", "BAD")) and "mode robust" in verdict
    assert result.outputs[node_of(prompt, "Frames")]["text"][0].startswith(
        f"{FRAMES} frames, person: tracked"
    )


def test_the_preview_workflow_runs_without_any_model_of_the_animator(comfy, object_info, with_tone):
    prompt = prompt_of("align-and-preview-poses", object_info, with_tone)
    assert "StableAnimator_LoadAnimatorModels" not in {part["class_type"] for part in prompt.values()}
    result = comfy.client.run(prompt, timeout=300)
    assert result.status == "success", result.error
    assert len(result.files()) >= 1 + FRAMES  # the sheet and a skeleton for each frame
    (saved,) = result.outputs[node_of(prompt, "Save Pose Keypoints")]["text"]
    frames = json.loads((comfy.base / "output" / saved).read_text())
    assert len(frames) == FRAMES and all(len(frame["people"]) == 1 for frame in frames)
    assert (frames[0]["canvas_width"], frames[0]["canvas_height"]) == (SIDE, SIDE)


def test_a_clip_without_people_ends_at_the_node_that_looked_and_the_server_lives(
    comfy, object_info, detectors
):
    import av

    path = comfy.base / "input" / "dark.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("h264", rate=30)
        stream.width, stream.height = 96, 64
        for _ in range(4):
            target.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24"))
            )
        target.mux(stream.encode(None))
    prompt = prompt_of("align-and-preview-poses", object_info, path.name)
    result = comfy.client.run(prompt, timeout=120)
    path.unlink()
    assert result.status == "error"
    assert result.error["node_type"] == "StableAnimator_DWPoseExtract"
    assert "DWPose Extract - images: show nobody" in result.error["exception_message"]
    comfy.check_alive()
