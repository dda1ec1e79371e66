"""Load Animator Models: files found and read, and every broken one named without harm."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

NAMES = {
    "unet": "unet.safetensors",
    "pose_net": "pose_net.safetensors",
    "face_encoder": "face_encoder.safetensors",
    "svd": "SVD/",
}
INPUTS = [name for name in NAMES if name != "svd"]


def load(pack, weight_dtype: str = "default", **changes):
    return pack.LoadAnimatorModels.execute(**{**NAMES, **changes}, weight_dtype=weight_dtype).args


@pytest.fixture
def folder(pack) -> Path:
    """models/stableanimator; what a test adds is removed."""
    root = pack.base / "models" / "stableanimator"
    before = set(root.iterdir())
    yield root
    for path in set(root.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def refusal(pack, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        load(pack, **changes)
    assert str(caught.value).startswith("Load Animator Models - ")
    return str(caught.value)


def test_the_files_become_comfyuis_own_kinds_of_model(pack, models: SimpleNamespace):
    import comfy.clip_vision
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    assert isinstance(models.model, ModelPatcher)
    assert isinstance(models.clip_vision, comfy.clip_vision.ClipVisionModel)
    assert isinstance(models.vae, comfy.sd.VAE)


@pytest.mark.parametrize("name", INPUTS)
def test_an_empty_file_is_named(name, pack, folder):
    (folder / "broken.safetensors").touch()
    message = refusal(pack, **{name: "broken.safetensors"})
    assert "broken.safetensors" in message
    assert "is empty (0 bytes). Download it again" in message


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("kept", [0.99, 0.5])
def test_a_file_that_was_cut_short_is_named(name, kept, pack, folder):
    whole = (folder / NAMES[name]).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: int(len(whole) * kept)])
    assert "cut short" in refusal(pack, **{name: "cut.safetensors"})


def test_a_pth_that_was_cut_short_is_named(pack, folder):
    torch.save({"weight": torch.zeros(1000)}, folder / "cut.pth")
    whole = (folder / "cut.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[:-700])
    message = refusal(pack, pose_net="cut.pth")
    assert "cut.pth" in message
    assert "damaged" in message


@pytest.mark.parametrize("content", [b"not a model", b"<!DOCTYPE html><html>", b"\x00" * 5000, b"{}" * 99])
def test_a_file_that_is_no_model_is_named(content, pack, folder):
    (folder / "foreign.safetensors").write_bytes(content)
    assert "foreign.safetensors" in refusal(pack, unet="foreign.safetensors")


def test_a_checkpoint_of_another_model_is_named_with_what_it_looks_like(pack):
    message = refusal(pack, unet="pose_net.safetensors")
    assert "PoseNet" in message
    assert "Choose unet.pth for this input" in message


def test_keys_of_no_known_model_are_named(pack, folder):
    torch.save({"first.weight": torch.zeros(2), "second": torch.zeros(2)}, folder / "other.pth")
    assert "first.weight" in refusal(pack, face_encoder="other.pth")


class Dangerous:
    """Pickled, it is a command that unpickling would run."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(name, way, pack, folder, tmp_path):
    proof = tmp_path / "it_ran"
    path = folder / "trap.pth"
    if way == "torch":
        torch.save({"weight": torch.zeros(2), "trap": Dangerous(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Dangerous(proof)))
    message = refusal(pack, **{name: "trap.pth"})
    assert "trap.pth" in message
    assert "nothing of it was run" in message
    assert not proof.exists()
    pickle.loads(pickle.dumps(Dangerous(proof)))
    assert proof.exists(), "the trap does not work, so the test shows nothing"


def test_a_missing_file_is_named_with_every_place_searched(pack):
    message = refusal(pack, unet="nowhere.safetensors")
    assert "unet: 'nowhere.safetensors' was not found in " in message
    assert str(pack.base / "models" / "stableanimator") in message
    assert "diffusion_models" in message


@pytest.mark.parametrize("name", [*INPUTS, "svd"])
@pytest.mark.parametrize(
    "path", ["../../secret.safetensors", "{absolute}", "SVD/../../../secret.safetensors", "..", "", "*"]
)
def test_no_name_leads_out_of_the_model_folders(name, path, pack):
    secret = pack.base / "secret.safetensors"
    shutil.copy(pack.base / "models" / "stableanimator" / NAMES["pose_net"], secret)
    try:
        message = refusal(pack, **{name: path.format(absolute=secret)})
    finally:
        secret.unlink()
    assert "was not found" in message


def test_a_bare_name_is_found_in_a_folder_below(pack, folder):
    (folder / "Animation").mkdir()
    shutil.copy(folder / NAMES["pose_net"], folder / "Animation" / "pose_net [v2].safetensors")
    assert load(pack, pose_net="pose_net [v2].safetensors")


def test_a_name_with_a_folder_means_that_folder(pack, folder):
    """Two fine-tunes may have the same file name."""
    (folder / "mine").mkdir()
    shutil.copy(folder / NAMES["unet"], folder / "mine" / "unet.safetensors")
    assert "was not found" in refusal(pack, unet="yours/unet.safetensors")


@pytest.mark.parametrize("part", ["vae", "image_encoder"])
def test_an_svd_folder_without_a_part_is_named(part, pack, folder):
    shutil.copytree(folder / "SVD", folder / "Half")
    shutil.rmtree(folder / "Half" / part)
    message = refusal(pack, svd="Half/")
    assert "Half" in message
    assert part in message


def test_an_unknown_dtype_is_refused(pack):
    assert "weight_dtype: is 'fp4'. Choose one of" in refusal(pack, weight_dtype="fp4")


def test_a_refused_file_leaves_the_loader_usable(pack):
    refusal(pack, unet="nowhere.safetensors")
    assert load(pack)
