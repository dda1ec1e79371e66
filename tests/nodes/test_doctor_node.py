"""The Model Doctor inside ComfyUI: true about every file, silent about private folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import standins
import torch
from PIL import Image

from stableanimator_core.doctor_table import STATE_COLOURS, draw_table


@pytest.fixture
def models(pack, core_comfy, monkeypatch, tmp_path) -> Path:
    """A models folder of its own, with good and damaged files."""
    import folder_paths

    folder = tmp_path / "comfyui" / "models"
    known = {name: ([str(folder / name)], set()) for name in folder_paths.folder_names_and_paths}
    monkeypatch.setattr(folder_paths, "models_dir", str(folder))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    (folder / "stableanimator").mkdir(parents=True)
    standins.official_tree(folder / "stableanimator")
    (folder / "stableanimator/antelopev2/scrfd_10g_bnkps.onnx").write_bytes(b"<html>not found</html>")
    torch.save({"no": torch.zeros(1)}, folder / "stableanimator/pose_net.pth")
    return folder


@pytest.fixture
def examined(pack, models):
    """The node's answer about that folder."""
    return pack.ModelDoctor.execute(False)


def test_good_damaged_and_missing_files_are_told_apart(examined):
    report = examined.args[0]
    titles = [line for line in report.splitlines() if line.startswith("[")]
    state = {title.split("] ")[1]: title[1:].split("]")[0].strip() for title in titles}
    assert state["the YOLOX person detector (DWPose)"] == "ok"
    assert state["the SCRFD face detector (antelopev2)"] == "bad"
    assert state["StableAnimator's PoseNet"] == "bad"
    assert "saved web page" in report and "licence:" in report
    assert "onnxruntime: a session really runs on" in report


def test_a_missing_file_says_where_to_get_it(pack, models):
    shutil.rmtree(models)
    report = pack.ModelDoctor.execute(False).args[0]
    assert report.count("[missing ]") == 8 and report.count("[optional]") == 7
    assert "https://huggingface.co/yzd-v/DWPose" in report


def test_the_report_is_in_the_ui_as_text_and_as_a_picture(pack, examined):
    assert examined.ui["text"] == [examined.args[0]]
    (image,) = examined.ui["images"]
    with Image.open(Path(pack.base) / "temp" / image["filename"]) as picture:
        assert picture.size == (examined.args[1].shape[2], examined.args[1].shape[1])


def test_no_folder_outside_comfyui_is_named(pack, models, tmp_path):
    import folder_paths

    secret = tmp_path / "home" / "somebody" / "weights"
    secret.mkdir(parents=True)
    standins.official_tree(secret)
    folder_paths.folder_names_and_paths["stableanimator"][0].insert(0, str(secret))
    report = pack.ModelDoctor.execute(False).args[0]
    assert "(extra folder) weights/DWPose/yolox_l.onnx" in report
    assert "models/stableanimator" in report
    assert str(tmp_path) not in report


def test_it_looks_again_on_every_run(pack):
    first, second = (pack.ModelDoctor.fingerprint_inputs(check_hashes=False) for _ in range(2))
    assert first != second


def test_the_table_has_a_coloured_field_for_the_state_of_each_file(examined):
    table = (examined.args[1][0].numpy() * 255).round().astype(np.uint8)
    shown = {tuple(pixel) for pixel in table[:, 5].tolist()}
    assert {STATE_COLOURS["ok"], STATE_COLOURS["bad"]} <= shown


def test_the_table_grows_with_its_text():
    from stableanimator_core.doctor import Row

    row = Row("unet", "a U-Net", None, 0, 100, "", "not found", "get it", "free")
    long = Row("unet", "a U-Net", None, 0, 100, "", "not found", "get it " * 60, "free")
    short_table, long_table = draw_table([row]), draw_table([long], ["a note"])
    assert long_table.shape[0] > short_table.shape[0] + 60 and long_table.shape[1] == short_table.shape[1]
    assert short_table.dtype == np.uint8 and short_table.shape[2] == 3
