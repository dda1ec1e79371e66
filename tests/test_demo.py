"""The demo: which workflow it takes, what it saves, and that on a bare machine a figure dances."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path

import demo
import demo_prompt
import numpy as np
import pytest
from contact_sheet import save_moving
from demo_small import on_small_model
from PIL import Image
from workflow_api import to_api

from stableanimator_core import small_model
from stableanimator_core.puppets.clip import make_clip
from stableanimator_core.puppets.demo import dance

REPOSITORY = Path(__file__).resolve().parents[1]
SIDE = 128
PERSON, MOTION = 1_000_014, 1_000_006  # the node's defaults


@pytest.fixture
def models(tmp_path) -> Path:
    folder = tmp_path / "base" / "models"
    folder.mkdir(parents=True)
    return folder


def options(**changes) -> Namespace:
    return Namespace(**{"comfyui": None, "weights": None, "workflow": None, **changes})


def comfyui_with(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "ComfyUI"
    for name in names:
        path = folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    return folder


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A copy of the pack that has the small model."""
    monkeypatch.setattr(demo, "SMALL_MODEL", tmp_path / "small")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "unet.safetensors").touch()


def chosen(models: Path, **changes) -> str:
    given = options(**changes)
    return demo.chosen_workflow(given, demo.prepare_models(models, given)).stem


def test_on_a_bare_machine_it_is_the_dancing_puppet(models, shipped):
    assert chosen(models) == "dancing-puppet"


def test_with_the_official_weights_it_is_the_photo(models, shipped, tmp_path):
    installed = comfyui_with(tmp_path, "stableanimator/Animation/unet.pth")
    assert chosen(models, comfyui=installed) == "animate-from-keypoints"
    assert chosen(models, weights=installed / "models") == "animate-from-keypoints"


def test_a_comfyui_without_a_unet_of_ours_leaves_it_at_the_puppet(models, shipped, tmp_path):
    files = ("stableanimator/glintr100.onnx", "stableanimator/denoising_unet.pth", "checkpoints/unet.pth")
    assert chosen(models, comfyui=comfyui_with(tmp_path, *files)) == "dancing-puppet"


def test_a_workflow_that_reads_poses_from_photos_is_refused_without_weights(models, shipped):
    with pytest.raises(demo_prompt.DemoError, match=r"animate-from-video\.json reads poses.*--weights"):
        chosen(models, workflow=REPOSITORY / "workflows/animate-from-video.json")
    assert chosen(models, workflow=REPOSITORY / "workflows/long-clip.json") == "long-clip"


def test_a_copy_without_the_small_model_says_so(models, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "SMALL_MODEL", tmp_path)
    with pytest.raises(demo_prompt.DemoError, match="is empty in this copy"):
        chosen(models)


def test_the_moving_picture_has_every_frame_at_the_videos_rate(tmp_path):
    pictures = [Image.new("RGB", (40, 30), (value, 0, 0)) for value in (0, 90, 180)]
    save_moving(tmp_path / "moving.gif", pictures[0], pictures, pictures, fps=8.0)
    with Image.open(tmp_path / "moving.gif") as moving:
        assert moving.n_frames == 3
        assert moving.info["duration"] == pytest.approx(125, abs=5)  # a GIF counts in hundredths of a second


@pytest.mark.parametrize("name", ["animate-from-keypoints", "long-clip", "keep-the-face-hjb"])
def test_other_workflows_run_on_the_small_model_with_a_puppet_instead_of_the_photo(name, comfy):
    object_info = comfy.client.object_info()
    workflow = json.loads((REPOSITORY / f"workflows/{name}.json").read_text(encoding="utf-8"))
    prompt = on_small_model(to_api(workflow, object_info), object_info)
    assert not demo_prompt.reads_a_photo(prompt)
    prompt = demo_prompt.with_settings(prompt, {"num_frames": 2, "steps": 2, "iterations": 1})
    result = comfy.client.run(demo_prompt.with_pictures(prompt))
    assert result.status == "success", result.error
    frames = [opened(comfy, file, None) for file in result.files(demo_prompt.RESULT)]
    assert [frame.shape[0] for frame in frames] == [SIDE, SIDE]


@pytest.fixture(scope="module")
def pictures(comfy) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames that the shipped workflow makes with the shipped weights, and the portrait; half the dance."""
    if small_model.missing(small_model.folder(), judges=False):
        pytest.fail("this copy of the pack lacks files of the small demo model: weights/small")
    object_info = comfy.client.object_info()
    workflow = json.loads((REPOSITORY / "workflows/dancing-puppet.json").read_text(encoding="utf-8"))
    prompt = demo_prompt.with_settings(to_api(workflow, object_info), {"num_frames": 8, "steps": 12})
    result = comfy.client.run(demo_prompt.with_pictures(prompt))
    assert result.status == "success", result.error
    files = {name: result.files(name) for name in (demo_prompt.RESULT, demo_prompt.PHOTO)}
    found = {name: [opened(comfy, file, SIDE) for file in named] for name, named in files.items()}
    return found[demo_prompt.RESULT], found[demo_prompt.PHOTO][0]


def opened(comfy, file: dict[str, str], side: int | None) -> np.ndarray:
    with Image.open(io.BytesIO(comfy.client.view(file))) as picture:
        size = (side, side) if side else picture.size
        return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), np.float32)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(20 * np.log10(255 / np.sqrt(np.mean((first - second) ** 2))))


def test_the_first_frame_of_the_dance_is_the_portrait(pictures):
    """It has the portrait's pose, so that it must be the same picture. Noise comes to 8 dB."""
    frames, portrait = pictures
    assert psnr(frames[0], portrait) > 15


def test_the_figure_follows_the_dance(pictures):
    """The frames are nearer to the true drawings of the dance than the portrait is."""
    frames, portrait = pictures
    true = make_clip(
        PERSON, MOTION, len(frames), SIDE, poses=dance(MOTION, len(frames)), framing="half"
    ).frames
    drawn = [frame.astype(np.float32) for frame in true[3:]]  # it has set off by then
    made = [psnr(frame, wanted) for frame, wanted in zip(frames[3:], drawn, strict=True)]
    assert len(made) == 5
    assert np.mean(made) > np.mean([psnr(portrait, wanted) for wanted in drawn]) + 1
