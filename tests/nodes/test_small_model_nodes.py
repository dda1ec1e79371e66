"""The small demo model in the menus: offered, default on an empty machine, never mixed with the official files."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from encoded import encode, face_of

MENUS = [
    ("LoadAnimatorModels", "unet", "unet.pth"),
    ("LoadAnimatorModels", "pose_net", "pose_net.pth"),
    ("LoadAnimatorModels", "face_encoder", "face_encoder.pth"),
    ("LoadAnimatorModels", "svd", "svd_xt.safetensors"),
    ("FaceEmbed", "recognizer", "glintr100.onnx"),
    ("LoadFaceRecognizer", "recognizer", "glintr100_torch.pth"),
]


@pytest.fixture
def small(pack):
    return pack.module("nodes.small")


@pytest.fixture
def nothing_installed(pack, monkeypatch):
    """ComfyUI's model folders are empty."""
    monkeypatch.setattr(pack.module("nodes.folders"), "_names", lambda folder: [])
    monkeypatch.setattr(pack.module("nodes.folders"), "_diffusers_directories", lambda root: [])


@pytest.fixture(scope="module")
def loaded(pack) -> SimpleNamespace:
    """The small model through Load Animator Models."""
    entry = pack.module("nodes.small").ENTRY
    outputs = pack.LoadAnimatorModels.execute(entry, entry, entry, entry, "default").args
    names = ("model", "clip_vision", "vae", "pose_net", "face_encoder")
    return SimpleNamespace(**dict(zip(names, outputs, strict=True)))


@pytest.fixture(scope="module")
def puppet(pack) -> tuple:
    return pack.DemoPuppet.execute(1_000_014, 1_000_006, "half", 128, 2).args


def menu(pack, node: str, name: str):
    return next(entry for entry in pack.nodes[node].define_schema().inputs if entry.id == name)


def embed(pack, image, mask, **changes):
    values = {"choice": "largest", "index": 0, "channels": "BGR (as trained)", "no_face": "error"}
    names = {
        "recognizer": pack.module("nodes.small").ENTRY,
        "detector": pack.module("nodes.face").NO_DETECTOR,
    }
    with torch.inference_mode():
        return pack.FaceEmbed.execute(image=image, face_mask=mask, **{**values, **names, **changes}).args[0]


@pytest.mark.parametrize(("node", "name", "official"), MENUS)
def test_it_is_the_last_entry_and_no_default_where_a_unet_is_installed(node, name, official, pack, small):
    found = menu(pack, node, name)
    assert found.options[-1] == small.ENTRY
    assert found.options.count(small.ENTRY) == 1
    assert found.default is None


@pytest.mark.parametrize(("node", "name", "official"), MENUS)
def test_on_an_empty_machine_it_is_the_default_and_the_official_name_stays_valid(
    node, name, official, pack, small, nothing_installed
):
    found = menu(pack, node, name)
    assert found.options == [official, small.ENTRY]
    assert found.default == small.ENTRY


def test_another_systems_unet_or_a_face_file_alone_does_not_change_the_defaults(pack, small, monkeypatch):
    files = {"stableanimator": ["denoising_unet.pth", "reference_unet.pth", "glintr100.onnx"]}
    monkeypatch.setattr(pack.module("nodes.folders"), "_names", lambda folder: files.get(folder, []))
    assert menu(pack, "LoadAnimatorModels", "unet").default == small.ENTRY
    assert menu(pack, "FaceEmbed", "recognizer").default == small.ENTRY
    files["stableanimator"].append("Animation/unet.pth")
    assert menu(pack, "LoadAnimatorModels", "unet").default is None
    assert menu(pack, "FaceEmbed", "recognizer").default is None


@pytest.mark.parametrize(("node", "name", "official"), MENUS)
def test_without_its_files_the_menus_are_as_they_were(
    node, name, official, pack, small, nothing_installed, monkeypatch, tmp_path
):
    monkeypatch.setattr(pack.module("stableanimator_core.small_model"), "folder", lambda: tmp_path)
    found = menu(pack, node, name)
    assert found.options == [official]
    assert found.default is None
    assert "missing: unet.safetensors" in small.note()
    with pytest.raises(ValueError, match="is not in this copy of the pack"):
        small.path_of("unet")


def test_the_entry_loads_the_shipped_files(pack, loaded, small_weights):
    from safetensors.torch import load_file

    wanted = load_file(small_weights / "pose_net.safetensors")["final_proj.weight"]
    assert torch.equal(loaded.pose_net.module.final_proj.weight, wanted.float())
    assert loaded.face_encoder.family == "small"


def test_the_loader_says_what_the_small_model_can_do(pack, small, caplog):
    with caplog.at_level(logging.WARNING):
        pack.LoadAnimatorModels.execute(*[small.ENTRY] * 4, "default")
    assert "Load Animator Models: the small demo model animates the drawn figures" in caplog.text


def test_files_of_two_models_are_refused_by_name(pack, small):
    files, networks = (
        pack.module(f"stableanimator_core.{name}") for name in ("weights.files", "models.pose_net")
    )
    path = pack.base / "models/stableanimator/wide_pose_net.safetensors"
    files.save_weights(path, networks.PoseNet(40).state_dict())
    try:
        with pytest.raises(ValueError) as caught:
            pack.LoadAnimatorModels.execute(small.ENTRY, path.name, small.ENTRY, small.ENTRY, "default")
    finally:
        path.unlink()
    assert "pose_net 'wide_pose_net.safetensors' (40 wide, not " in str(caught.value)
    assert "in all four menus, or in none" in str(caught.value)


def test_a_painted_face_needs_no_detector_and_knows_its_family(pack, puppet, caplog):
    with caplog.at_level(logging.WARNING):
        face = embed(pack, puppet[0], puppet[1])
    assert face.family == "small"
    assert face.identity.shape == (512,)
    assert not caplog.text


def test_the_small_recogniser_sees_the_painted_face_even_where_a_detector_is_installed(
    pack, puppet, monkeypatch
):
    monkeypatch.setattr(pack.module("nodes.face"), "_open_detector", lambda *_, **__: pytest.fail("opened"))
    embed(pack, puppet[0], puppet[1], detector="scrfd_10g_bnkps.onnx")


def test_no_detector_and_no_mask_is_refused_with_both_ways_out(pack, puppet):
    with pytest.raises(ValueError, match="Connect a face mask, or choose a detector"):
        embed(pack, puppet[0], None)


def test_no_detector_is_the_last_entry_of_face_embeds_menu_only(pack):
    none = pack.module("nodes.face").NO_DETECTOR
    assert menu(pack, "FaceEmbed", "detector").options[-1] == none
    assert none not in menu(pack, "FaceMasks", "detector").options


def test_the_family_is_read_from_entry_and_size(pack, small):
    def network(*blocks):
        levels = {f"layer{number}": [None] * count for number, count in enumerate(blocks, start=1)}
        return SimpleNamespace(num_levels=len(blocks), get_submodule=levels.__getitem__)

    assert small.family_of_face_encoder(small.ENTRY, SimpleNamespace(token_width=64)) == "small"
    assert small.family_of_face_encoder("face_encoder.pth", SimpleNamespace(token_width=1024)) == "official"
    assert small.family_of_face_encoder("mine.safetensors", SimpleNamespace(token_width=64)) == ""
    assert small.family_of_recogniser(small.ENTRY, network(1, 1, 1, 1)) == "small"
    assert small.family_of_recogniser("glintr100.onnx", None) == "official"
    assert small.family_of_recogniser("glintr100_torch.pth", network(3, 13, 30, 3)) == "official"
    assert small.family_of_recogniser("mine.pth", network(1, 1, 1, 1)) == ""


@pytest.mark.parametrize("families", [("small", "official"), ("official", "small")])
def test_a_face_of_one_family_with_the_face_encoder_of_the_other_is_refused(families, pack, models):
    from dataclasses import replace

    managed = pack.module("nodes.managed")
    face = replace(face_of(pack), family=families[0])
    encoder = managed.ManagedNetwork(models.face_encoder.module, families[1])
    with pytest.raises(ValueError, match="in Face Embed and Load Animator Models, or in neither"):
        encode(pack, models, face=face, face_encoder=encoder)


@pytest.mark.parametrize("families", [("small", "small"), ("", "official"), ("small", "")])
def test_one_family_or_an_unknown_one_is_let_through(families, pack, models):
    from dataclasses import replace

    encoder = pack.module("nodes.managed").ManagedNetwork(models.face_encoder.module, families[1])
    encode(pack, models, face=replace(face_of(pack), family=families[0]), face_encoder=encoder)


def test_hjb_refuses_the_small_recogniser_for_an_official_face(pack, small, models):
    from dataclasses import replace

    recogniser = pack.LoadFaceRecognizer.execute(small.ENTRY).args[0]
    assert recogniser.family == "small"
    face = replace(face_of(pack), family="official", corners=(2.0, 2.0, 30.0, 30.0))
    with pytest.raises(ValueError, match="in Load Face Recognizer and Face Embed, or in neither"):
        pack.HJBSampler.execute(
            models.vae,
            recogniser,
            torch.rand(1, 64, 64, 3),
            face,
            [[]],
            mode="exact",
            iterations=1,
            learning_rate=0.1,
            start_percent=0.0,
            end_percent=0.8,
            chunk=4,
            budget_gib=0.0,
        )


@pytest.mark.parametrize(("side", "told"), [(64, True), (128, False), (192, False), (256, True)])
def test_a_size_far_from_128_is_told_not_refused(side, told, pack, loaded, puppet, caplog):
    face = embed(pack, puppet[0], puppet[1])
    caplog.clear()
    sockets = {"clip_vision": loaded.clip_vision, "vae": loaded.vae, "face_encoder": loaded.face_encoder}
    with caplog.at_level(logging.WARNING):
        encode(pack, loaded, **sockets, image=puppet[0], face=face, width=side, height=side, num_frames=1)
    assert ("knows 128 x 128 only" in caplog.text) == told


def test_the_doctor_mentions_the_small_model(pack):
    report = pack.ModelDoctor.execute(False).args[0]
    assert "comes with the pack: the small demo model" in report
