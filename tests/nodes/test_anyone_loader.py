"""Load Animate Anyone Models: menus, the small demo model among them, files in, and words where they are mixed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anyone import NAMES, ksample, skeletons

from stableanimator_core.models.image_vae import image_config_of, image_vae_of
from stableanimator_core.weights.files import save_weights
from stableanimator_core.weights.load import load_vae

OFFICIAL = {
    "denoising_unet": "denoising_unet.pth",
    "reference_unet": "reference_unet.pth",
    "motion_module": "motion_module.pth",
    "pose_guider": "pose_guider.pth",
    "vae": "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
    "image_encoder": "image_encoder/pytorch_model.bin",
}
NODE = "LoadAnimateAnyoneModels"
SIDE = 64


@pytest.fixture
def small(pack):
    return pack.module("nodes.small")


@pytest.fixture
def nothing_installed(pack, monkeypatch) -> dict[str, list[str]]:
    """ComfyUI's model folders are empty; what a test puts into the dict is in them."""
    files: dict[str, list[str]] = {}
    monkeypatch.setattr(pack.module("nodes.folders"), "_names", lambda folder: files.get(folder, []))
    return files


@pytest.fixture
def folder(pack, small_weights) -> Iterator[Path]:
    """models/stableanimator/AnimateAnyone with the small model's files under official names, and a VAE of its own."""
    root = pack.base / "models" / "stableanimator" / "AnimateAnyone"
    shutil.copytree(small_weights / "animate_anyone", root)
    of_video = load_vae(small_weights / "SVD", torch.float32)
    config = {"_class_name": "AutoencoderKL", **image_config_of(of_video)}
    state = image_vae_of(of_video).state_dict()
    save_weights(root / "vae.safetensors", state, {"config": json.dumps(config)})
    shutil.copytree(small_weights / "SVD" / "image_encoder", root / "image_encoder")
    yield root
    shutil.rmtree(root)


def menu(pack, name: str):
    return next(entry for entry in pack.nodes[NODE].define_schema().inputs if entry.id == name)


def load(pack, entry: str, weight_dtype: str = "default", **changes: str) -> SimpleNamespace:
    chosen = {**dict.fromkeys(OFFICIAL, entry), **changes}
    outputs = pack.nodes[NODE].execute(**chosen, weight_dtype=weight_dtype).args
    return SimpleNamespace(**dict(zip(NAMES, outputs, strict=True)))


def from_folder(pack, weight_dtype: str = "default", **changes: str) -> SimpleNamespace:
    names = {role: f"AnimateAnyone/{role}.safetensors" for role in OFFICIAL}
    return load(
        pack, "", weight_dtype, **{**names, "image_encoder": "AnimateAnyone/image_encoder/", **changes}
    )


@pytest.fixture(scope="module")
def loaded(pack) -> SimpleNamespace:
    return load(pack, pack.module("nodes.small").ENTRY)


@pytest.mark.parametrize("name", OFFICIAL)
def test_on_an_empty_machine_the_small_model_is_the_default_and_the_official_name_stays_valid(
    name, pack, small, nothing_installed
):
    found = menu(pack, name)
    assert found.options[0] == OFFICIAL[name]
    assert found.options[-1] == small.ENTRY
    assert found.default == small.ENTRY


@pytest.mark.parametrize("name", OFFICIAL)
def test_where_a_denoising_unet_is_installed_the_small_model_is_the_last_entry_and_no_default(
    name, pack, small, nothing_installed
):
    nothing_installed["stableanimator"] = ["AnimateAnyone/denoising_unet.pth"]
    found = menu(pack, name)
    assert found.options[-1] == small.ENTRY
    assert found.default is None


def test_stableanimators_own_unet_does_not_change_the_defaults(pack, small, nothing_installed):
    nothing_installed["stableanimator"] = ["Animation/unet.pth"]
    assert menu(pack, "denoising_unet").default == small.ENTRY


@pytest.mark.parametrize("name", OFFICIAL)
def test_without_its_files_the_menus_offer_no_small_model(
    name, pack, small, nothing_installed, monkeypatch, tmp_path
):
    monkeypatch.setattr(pack.module("stableanimator_core.small_model"), "folder", lambda: tmp_path)
    found = menu(pack, name)
    assert small.ENTRY not in found.options
    assert found.default is None
    with pytest.raises(ValueError, match="is not in this copy of the pack"):
        small.path_of(name)


def test_each_menu_begins_with_its_own_file_also_beside_those_of_stableanimator(pack, nothing_installed):
    wanted = [f"AnimateAnyone/{name}" for name in OFFICIAL.values()]
    nothing_installed["stableanimator"] = [*wanted, "SVD/svd_xt.safetensors", "unet.pth", "zeroscope.pth"]
    for name, official in OFFICIAL.items():
        assert menu(pack, name).options[0] == f"AnimateAnyone/{official}"
    theirs = next(entry for entry in pack.LoadAnimatorModels.define_schema().inputs if entry.id == "unet")
    assert theirs.options[0] == "unet.pth"


def test_the_small_model_is_loaded_from_the_shipped_files(pack, loaded, small_weights):
    from safetensors.torch import load_file

    for network, name in (
        (loaded.model.model.diffusion_model, "denoising_unet"),
        (loaded.reference_net.patcher.model, "reference_unet"),
    ):
        wanted = load_file(small_weights / "animate_anyone" / f"{name}.safetensors")["conv_in.weight"]
        assert torch.equal(network.conv_in.weight.float(), wanted.float())
    assert loaded.reference_net.family == "small"


def test_the_loader_says_what_the_small_model_can_do(pack, small, caplog):
    with caplog.at_level(logging.WARNING):
        load(pack, small.ENTRY)
    assert "Load Animate Anyone Models: the small demo model animates the drawn figures" in caplog.text


@pytest.mark.parametrize(("side", "told"), [(64, True), (128, False)])
def test_a_size_far_from_128_is_told_not_refused(side, told, pack, loaded, caplog):
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        pack.ReferenceNetEncode.execute(
            *(loaded.reference_net, loaded.clip_vision, loaded.vae, torch.rand(1, side, side, 3)),
            *(side, side, 1, False),
        )
    assert ("knows 128 x 128 only" in caplog.text) == told


@pytest.mark.parametrize("weight_dtype", ["default", "bf16", "fp8_e4m3fn"])
def test_loaded_files_animate(weight_dtype, pack, core_comfy, folder):
    models = from_folder(pack, weight_dtype)
    with torch.inference_mode():
        positive, negative, latent = pack.ReferenceNetEncode.execute(
            *(models.reference_net, models.clip_vision, models.vae, torch.rand(1, SIDE, SIDE, 3)),
            *(SIDE, SIDE, 2, False),
        ).args
        poses = torch.nn.functional.interpolate(skeletons(2).movedim(-1, 1), (SIDE, SIDE)).movedim(1, -1)
        posed = pack.ApplyPoseGuider.execute(
            positive, negative, models.pose_guider, poses, 1.0, 0.0, 1.0
        ).args
    made = SimpleNamespace(positive=posed[0], negative=posed[1], latent=latent)
    assert ksample(core_comfy, models.model, made, steps=1).isfinite().all()


def test_without_motion_modules_the_frames_know_nothing_of_each_other(pack, folder):
    none = pack.module("nodes.anyone_loader").NO_MOTION
    assert from_folder(pack).model.model.longest_window == 24
    assert from_folder(pack, motion_module=none).model.model.longest_window is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"denoising_unet": "AnimateAnyone/reference_unet.safetensors"},
            "looks like Animate Anyone's reference",
        ),
        (
            {"reference_unet": "AnimateAnyone/denoising_unet.safetensors"},
            "or Animate Anyone's denoising one",
        ),
        (
            {"motion_module": "AnimateAnyone/pose_guider.safetensors"},
            "looks like Animate Anyone's pose guider",
        ),
        ({"vae": "SVD/vae/diffusion_pytorch_model.safetensors"}, "VAE of Stable Diffusion"),
        ({"pose_guider": "gone.pth"}, "'gone.pth' was not found in"),
    ],
)
def test_a_wrong_file_is_named_with_what_it_is(changes, words, pack, folder):
    with pytest.raises(ValueError) as caught:
        from_folder(pack, **changes)
    message = str(caught.value)
    assert message.startswith("Load Animate Anyone Models - ")
    assert next(iter(changes.values())) in message
    assert words in message


@pytest.mark.parametrize("role", ["vae", "image_encoder"])
def test_the_small_models_vae_goes_with_its_image_encoder(role, pack, small, folder):
    with pytest.raises(
        ValueError, match="do not belong together. Choose 'small demo model .*in all six menus"
    ):
        from_folder(pack, **{role: small.ENTRY})


def test_networks_of_two_models_are_refused_by_their_size(pack, folder):
    anyone = pack.module("stableanimator_core.animate_anyone.demo_weights")
    anyone.write(folder, 2 * pack.module("stableanimator_core.demo_weights").TOKEN_WIDTH)
    with pytest.raises(
        ValueError, match=r"CLIP image encoder.*has the width \d+, the denoising U-Net needs 256"
    ):
        from_folder(pack)
