"""The model doctor on small files in the official layouts, whole, damaged and misnamed."""

from dataclasses import replace
from pathlib import Path

import pytest
import standins
import torch

from stableanimator_core import doctor, doctor_layouts, onnx_sessions
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.weights.locate import KNOWN_FILES

ANYONE_ONLY = {role for role, known in KNOWN_FILES.items() if known.system == "Animate Anyone"}


@pytest.fixture
def models(tmp_path) -> Path:
    """The official tree with the four ONNX stand-ins and a PoseNet."""
    standins.official_tree(tmp_path)
    (tmp_path / "Animation").mkdir()
    torch.save(PoseNet().state_dict(), tmp_path / "Animation/pose_net.pth")
    return tmp_path


def examined(folder: Path, **options) -> dict[str, doctor.Row]:
    return {row.role: row for row in doctor.examine([folder], **options)}


def test_every_known_file_has_a_row_and_an_empty_folder_says_what_to_get(tmp_path):
    rows = examined(tmp_path)
    assert set(rows) == set(KNOWN_FILES)
    optional = {role for role, row in rows.items() if row.state == "optional"}
    assert optional == ANYONE_ONLY | {"face_recognizer"}
    assert all(row.state == "missing" for role, row in rows.items() if role not in optional)
    assert all(KNOWN_FILES[role].url in row.remedy for role, row in rows.items())


def test_good_files_are_ok_with_place_size_and_contents(models):
    rows = examined(models)
    pose_net = rows["pose_net"]
    assert pose_net.state == "ok"
    assert pose_net.path == models / "Animation/pose_net.pth"
    assert pose_net.size == pose_net.path.stat().st_size
    assert pose_net.layout == "19 tensors, float32"
    for role in ("face_detector", "face_embedder", "person_detector", "pose_estimator"):
        assert rows[role].state == "ok", rows[role].problem
    assert rows["pose_estimator"].layout == "takes [n, 3, 384, 288], gives 2 outputs"


def test_files_of_a_system_that_nobody_uses_are_optional(models):
    from stableanimator_core.animate_anyone.pose_guider import PoseGuider

    assert all(row.state == "optional" for role, row in examined(models).items() if role in ANYONE_ONLY)
    torch.save(PoseGuider().state_dict(), models / "pose_guider.pth")
    rows = examined(models)
    assert rows["pose_guider"].state == "ok" and rows["pose_guider"].layout == "16 tensors, float32"
    assert {rows[role].state for role in ANYONE_ONLY - {"pose_guider"}} == {"missing"}
    assert rows["unet"].state == "missing"
    (models / "Animation/pose_net.pth").unlink()
    rows = examined(models)
    assert rows["unet"].state == rows["svd"].state == rows["pose_net"].state == "optional"
    assert "only StableAnimator needs it" in rows["unet"].remedy
    assert rows["person_detector"].state == "ok"


def test_a_converted_file_is_found_and_named_with_its_precision(models):
    from safetensors.torch import save_file

    state = {key: value.half() for key, value in PoseNet().state_dict().items()}
    save_file(state, str(models / "Animation/pose_net_fp16.safetensors"))
    row = examined(models)["pose_net"]
    assert (row.state, row.path.name, row.layout) == (
        "ok",
        "pose_net_fp16.safetensors",
        "19 tensors, float16",
    )
    assert row.others == (models / "Animation/pose_net.pth",)


def test_a_file_that_holds_another_model_is_bad(models):
    torch.save(
        {"layer1.0.prelu.weight": torch.ones(2), "features.weight": torch.ones(2)}, models / "unet.pth"
    )
    row = examined(models)["unet"]
    assert row.state == "bad"
    assert "ArcFace" in row.problem


def test_exchanged_onnx_files_are_bad(models):
    detector, estimator = models / "DWPose/yolox_l.onnx", models / "DWPose/dw-ll_ucoco_384.onnx"
    detector.rename(models / "x")
    estimator.rename(detector)
    (models / "x").rename(estimator)
    (models / "antelopev2/glintr100.onnx").write_bytes(
        (models / "antelopev2/scrfd_10g_bnkps.onnx").read_bytes()
    )
    rows = examined(models)
    assert "YOLOX" in rows["person_detector"].problem
    assert "DWPose takes" in rows["pose_estimator"].problem
    assert "ArcFace takes" in rows["face_embedder"].problem
    assert rows["face_detector"].state == "ok"


def test_truncated_empty_and_unreal_files_are_bad_and_the_rest_is_still_examined(models):
    path = models / "Animation/pose_net.pth"
    path.write_bytes(path.read_bytes()[:3000])
    (models / "DWPose/yolox_l.onnx").write_bytes(b"")
    (models / "antelopev2/glintr100.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    rows = examined(models)
    assert [rows[role].state for role in ("pose_net", "person_detector", "face_embedder")] == ["bad"] * 3
    assert "Git LFS" in rows["face_embedder"].problem
    assert all(rows[role].remedy for role in ("pose_net", "person_detector", "face_embedder"))
    assert rows["face_detector"].state == "ok"


def test_hashes_are_compared_when_asked(models, monkeypatch):
    path = models / "DWPose/yolox_l.onnx"
    assert examined(models)["person_detector"].state == "ok"
    assert "SHA-256" in examined(models, check_hashes=True)["person_detector"].problem
    known = KNOWN_FILES["person_detector"]
    right = replace(known, sha256=doctor_layouts.sha256_of(path))
    monkeypatch.setitem(KNOWN_FILES, "person_detector", right)
    assert "hash as published" in examined(models, check_hashes=True)["person_detector"].layout


def test_the_text_tells_place_size_licence_and_what_to_do(models):
    text = doctor.as_text(
        doctor.examine([models, models / "nowhere"]), [models, models / "nowhere"], ["a note"]
    )
    assert f"{models}/Animation/pose_net.pth" in text
    assert "(published: 0.8 MB)" in text or "as published" in text
    assert text.count("licence:") == len(KNOWN_FILES)
    assert "non-commercial research only" in text
    assert "5 ok, 3 missing, 7 optional." in text
    assert "nowhere (no such folder)" in text
    assert text.endswith("a note")


def test_the_command_prints_the_table_and_fails_while_files_are_missing(models, capsys):
    assert doctor.main(["--models", str(models)]) == 1
    shown = capsys.readouterr().out
    assert "[   ok   ] StableAnimator's PoseNet" in shown
    assert "a session really runs on CPUExecutionProvider" in shown
    assert "libraries: torch" in shown


def test_two_onnxruntime_wheels_at_once_are_reported(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name.startswith("onnxruntime") else "")
    assert any("the one installed last wins" in line for line in doctor.provider_lines())


def test_a_broken_onnxruntime_is_reported_instead_of_raised(monkeypatch):
    def broken():
        raise ImportError("onnxruntime is missing or damaged")

    monkeypatch.setattr(onnx_sessions, "available_providers", broken)
    assert any("missing or damaged" in line for line in doctor.provider_lines())


def test_the_probe_reports_what_a_session_really_uses_not_what_the_wheel_offers():
    assert onnx_sessions.probe_providers("cpu") == ["CPUExecutionProvider"]
