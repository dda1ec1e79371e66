"""DWPose Extract inside ComfyUI: files and people found, progress, cancel, words when nobody is there."""

from __future__ import annotations

from pathlib import Path

import figure_standin
import numpy as np
import pytest
import standins
import torch

RGB, BGR = "RGB (as the official extraction)", "BGR (as the detector was trained)"


@pytest.fixture(scope="module", autouse=True)
def detectors(pack) -> Path:
    folder = pack.base / "models" / "stableanimator" / "DWPose"
    figure_standin.write_detectors(folder)
    return folder


def picture(colour=(255, 255, 255), frames: int = 1, height: int = 96, width: int = 96) -> torch.Tensor:
    """Frames of one colour: the stand-in sees a person if red is bright."""
    return torch.tensor(colour, dtype=torch.float32).expand(frames, height, width, 3) / 255


def extract(pack, images, no_person="leave empty", channels=RGB, **files):
    detector = files.get("detector", "yolox_l.onnx")
    estimator = files.get("estimator", "dw-ll_ucoco_384.onnx")
    return pack.DWPoseExtract.execute(images, detector, estimator, no_person, channels, 128).args


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.dwpose"), "say", lambda node, text: texts.append(text))
    return texts


def test_every_frame_gives_its_people_and_a_skeleton_picture_of_the_same_aspect(pack):
    poses, preview, num_frames = extract(pack, picture(frames=3, height=64, width=96))
    assert num_frames == len(poses) == 3
    assert (poses[0]["canvas_width"], poses[0]["canvas_height"]) == (96, 64)
    body = np.array(poses[0]["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
    assert (body[:, 2] > 0.3).all() and np.ptp(body[:, 1]) > 20
    assert preview.shape == (3, 128, 192, 3) and preview.max() > 0.5


def test_a_frame_without_people_stays_empty_and_is_named(pack, said):
    images = torch.cat([picture(), picture((0, 0, 0), 2), picture()])
    poses, preview, _ = extract(pack, images)
    assert [len(frame["people"]) for frame in poses] == [1, 0, 0, 1]
    assert preview[1].max() == 0
    assert "nobody found in 2 of 4 frames: 1-2" in said[-1]


def test_the_official_policy_guesses_a_person_from_the_whole_picture(pack):
    poses, _, _ = extract(pack, picture((0, 0, 0)), "whole picture (official)")
    assert len(poses[0]["people"]) == 1


def test_the_policy_error_stops_and_names_the_frame(pack):
    with pytest.raises(ValueError, match="frame 1.") as caught:
        extract(pack, torch.cat([picture(), picture((0, 0, 0))]), "error")
    assert str(caught.value).startswith("DWPose Extract - images: show nobody")


def test_nobody_in_any_frame_is_an_error_that_says_what_to_try(pack):
    with pytest.raises(ValueError, match=r"any of the 2 frames\. .*channel order"):
        extract(pack, picture((0, 0, 0), 2))


def test_two_people_are_both_kept(pack, detectors):
    standins.yolox(detectors / "two.onnx", [(100, 60, 300, 600), (340, 60, 540, 600)])
    poses, _, _ = extract(pack, picture(), detector="two.onnx")
    first, second = (np.array(p["pose_keypoints_2d"]).reshape(-1, 3)[:, 0].mean() for p in poses[0]["people"])
    assert abs(first - second) > 10


def test_the_channel_order_reaches_the_detector(pack):
    red = picture((255, 0, 0))
    assert extract(pack, red, channels=RGB)[0][0]["people"]
    with pytest.raises(ValueError, match="nobody"):
        extract(pack, red, channels=BGR)


def test_what_runs_the_networks_is_said_once(pack, said):
    from stableanimator_core.onnx_sessions import probe_providers

    extract(pack, picture(frames=3))
    assert said == [f"runs on {probe_providers()[0].removesuffix('ExecutionProvider')}"]


def test_progress_counts_frames_and_cancel_stops_between_two(pack, core_comfy):
    import comfy.utils

    counts: list[int] = []

    def stop_at_two(value, total, preview, **_):
        counts.append(value)
        if value == 2:
            raise KeyboardInterrupt

    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(stop_at_two)
    try:
        with pytest.raises(KeyboardInterrupt):
            extract(pack, picture(frames=5))
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
    assert counts == [1, 2]


def test_copies_that_controlnet_aux_has_are_found(pack, core_comfy, tmp_path):
    import folder_paths

    place = Path(folder_paths.models_dir) / "controlnet_aux" / "yzd-v" / "DWPose"
    figure_standin.write_detectors(place)
    (place / "yolox_l.onnx").rename(place / "yolox_of_aux.onnx")
    folders = pack.module("nodes.folders")
    name = "yzd-v/DWPose/yolox_of_aux.onnx"
    assert name in folders.file_choices(folders.POSE_FOLDERS, "", "yolox", endings=folders.ONNX_ENDINGS)
    assert extract(pack, picture(), detector=name)[2] == 1


def test_the_folder_of_the_pack_controlnet_aux_is_searched(pack, core_comfy, tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "comfyui_controlnet_aux" / "ckpts").mkdir(parents=True)
    known = {**folder_paths.folder_names_and_paths, "custom_nodes": ([str(tmp_path)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    assert (
        str(tmp_path / "comfyui_controlnet_aux" / "ckpts") in pack.module("nodes.folders")._controlnet_aux()
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"<html>", "holds text"), (b"\x00\x01garbage", "cannot open it")],
)
def test_an_unreadable_network_is_refused_by_name(pack, detectors, content, words):
    (detectors / "broken.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        extract(pack, picture(), detector="broken.onnx")
    assert "broken.onnx" in str(caught.value)


def test_networks_in_each_others_place_are_refused(pack):
    with pytest.raises(ValueError, match=r"dw-ll_ucoco_384\.onnx"):
        extract(pack, picture(), estimator="yolox_l.onnx")
    with pytest.raises(ValueError, match=r"yolox_l\.onnx"):
        extract(pack, picture(), detector="dw-ll_ucoco_384.onnx")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.full((2, 64, 64, 3), float("nan")), "NaN"),
        (torch.rand(1, 64, 64, 1), "shape"),
        (torch.rand(1, 4, 4, 3), "pixels"),
        (torch.zeros(0, 64, 64, 3), "shape"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(pack, images, words):
    with pytest.raises(ValueError, match=words):
        extract(pack, images)


@pytest.mark.parametrize(("name", "value"), [("no_person", "guess"), ("channels", "GRB")])
def test_a_menu_entry_that_does_not_exist_is_refused(pack, name, value):
    with pytest.raises(ValueError, match=f"{name}: is '{value}'"):
        extract(pack, picture(), **{name: value})


def test_a_path_out_of_the_models_folder_is_refused(pack, tmp_path):
    standins.yolox(pack.base / "escape.onnx")
    with pytest.raises(ValueError, match="was not found"):
        extract(pack, picture(), detector="../../escape.onnx")
