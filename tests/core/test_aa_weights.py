"""Animate Anyone's files: the published layouts fit completely, other namings, wrong files, one family."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from stableanimator_core.animate_anyone.denoising_unet import MOTION, build_denoising_unet, longest_window
from stableanimator_core.animate_anyone.motion_file import config_from as motion_config_from
from stableanimator_core.animate_anyone.pose_guider import PaperPoseGuider, PoseGuider
from stableanimator_core.animate_anyone.reference_net import build_reference_net
from stableanimator_core.convert import convert
from stableanimator_core.errors import WeightsError
from stableanimator_core.models.image_encoder import build_image_encoder
from stableanimator_core.models.vae import build_image_vae, image_config_from
from stableanimator_core.weights import animate_anyone as aa
from stableanimator_core.weights import load
from stableanimator_core.weights.files import Weights, save_weights
from stableanimator_core.weights.roles import kind_of
from stableanimator_core.weights.svd_layout import _RESNET, _vae_modules

KEYS = Path(__file__).parents[1] / "keys"
KEY_COUNTS = {
    "denoising_unet": 686,
    "reference_unet": 682,
    "motion_module": 588,
    "pose_guider": 16,
    "image_vae": 248,
}
TINY = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
TINY_VAE = {
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
}
TINY_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 24,
}


def official(role):
    """The official file's keys and shapes, without numbers."""
    listed = json.loads(gzip.decompress((KEYS / f"{role}.json.gz").read_bytes()))
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()}


def official_config(role, state):
    if role == "image_vae":
        return image_config_from(state)
    return load.model_config(role, Weights(state), Path(role))


@pytest.mark.parametrize("role", KEY_COUNTS)
def test_every_key_of_the_official_file_is_taken_and_none_is_left(role):
    state = official(role)
    assert len(state) == KEY_COUNTS[role]
    network = load.build_empty(role, official_config(role, state))
    load.load_exactly(network, state, role)
    assert kind_of(state.keys()).role == role


def test_the_two_files_together_are_the_whole_network():
    both = official("denoising_unet") | official("motion_module")
    assert len(both) == 1274
    config = official_config("denoising_unet", both)
    network = load.build_empty("denoising_unet", config)
    load.load_exactly(network, both, "both")
    assert sum(p.numel() for p in network.parameters()) == 1_312_730_244
    assert longest_window(network) == 32
    assert len(motion_config_from(official("motion_module"))["widths"]) == 21
    assert config["attention_head_dim"] == 8


def saved(path, network, config=None):
    metadata = {"config": json.dumps(config)} if config else {}
    if path.suffix == ".safetensors":
        save_weights(path, network.state_dict(), metadata)
    else:
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny family; both U-Nets tell their heads, and the motion modules lie in a file of their own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("anyone")
    unet = build_denoising_unet({**TINY, MOTION: {"max_frames": 8}})
    for parameter in unet.parameters():
        parameter.data = torch.randn_like(parameter)
    state = unet.state_dict()
    motion = {key: tensor for key, tensor in state.items() if ".motion_modules." in key}
    torch.save(motion, folder / "mm_sd_v15_v2.ckpt")
    still = {key: tensor for key, tensor in state.items() if key not in motion}
    save_weights(folder / "denoising_unet.safetensors", still, {"config": json.dumps(TINY)})
    saved(folder / "whole.safetensors", unet, {**TINY, MOTION: {"max_frames": 8}})
    saved(folder / "reference_unet.safetensors", build_reference_net(TINY), TINY)
    saved(folder / "pose_guider.pth", PoseGuider(32))
    saved(folder / "image_vae.safetensors", build_image_vae(TINY_VAE))
    saved(folder / "clip.safetensors", build_image_encoder(TINY_CLIP), TINY_CLIP)
    return folder


def test_motion_modules_come_from_their_own_file_or_from_the_same(files):
    whole = aa.load_denoising_unet(files / "whole.safetensors")
    joined = aa.load_denoising_unet(files / "denoising_unet.safetensors", files / "mm_sd_v15_v2.ckpt")
    still = aa.load_denoising_unet(files / "denoising_unet.safetensors")
    state = whole.state_dict()
    assert joined.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in joined.state_dict().items())
    assert longest_window(joined) == 8 and longest_window(still) is None
    assert not whole.training and not any(p.requires_grad for p in whole.parameters())


def test_a_motion_file_replaces_the_motion_modules_of_a_whole_one(files, tmp_path):
    other = torch.load(files / "mm_sd_v15_v2.ckpt")
    torch.save({key: tensor + 1 for key, tensor in other.items()}, tmp_path / "motion_module.pth")
    network = aa.load_denoising_unet(files / "whole.safetensors", tmp_path / "motion_module.pth")
    key = next(iter(other))
    assert torch.equal(network.state_dict()[key], other[key] + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_number_formats(files, dtype):
    network = aa.load_denoising_unet(files / "whole.safetensors", dtype=dtype)
    assert network.conv_in.weight.dtype == dtype
    assert network.conv_in.bias.dtype == torch.float16


def test_a_damaged_motion_file_is_named_not_the_other(files, tmp_path):
    modules = torch.load(files / "mm_sd_v15_v2.ckpt")
    modules.pop(next(iter(modules)))
    torch.save(modules, tmp_path / "motion_module.pth")
    with pytest.raises(WeightsError, match=r"motion_module.pth: does not fit MotionFile: .* 1 missing"):
        aa.load_denoising_unet(files / "denoising_unet.safetensors", tmp_path / "motion_module.pth")


def test_motion_modules_of_another_width_are_named_with_both_files(files, tmp_path):
    other = build_denoising_unet({**TINY, "block_out_channels": (32, 32), MOTION: {}}).state_dict()
    torch.save({k: t for k, t in other.items() if ".motion_modules." in k}, tmp_path / "motion_module.pth")
    with pytest.raises(
        WeightsError, match="denoising_unet.safetensors with .*motion_module.pth.*another shape"
    ):
        aa.load_denoising_unet(files / "denoising_unet.safetensors", tmp_path / "motion_module.pth")


@pytest.mark.parametrize(
    ("loader", "name", "problem"),
    [
        (aa.load_denoising_unet, "reference_unet.safetensors", "looks like Animate Anyone's reference U-Net"),
        (aa.load_denoising_unet, "mm_sd_v15_v2.ckpt", "looks like Animate Anyone's motion module"),
        (aa.load_reference_net, "denoising_unet.safetensors", "looks like an image U-Net"),
        (aa.load_reference_net, "pose_guider.pth", "looks like Animate Anyone's pose guider"),
        (aa.load_pose_guider, "image_vae.safetensors", "looks like a Stable Diffusion VAE"),
        (aa.load_image_vae, "clip.safetensors", "looks like a CLIP image encoder"),
        (aa.load_image_vae, "pose_guider.pth", "looks like Animate Anyone's pose guider"),
    ],
)
def test_a_model_in_the_wrong_slot_is_called_by_its_name(files, loader, name, problem):
    with pytest.raises(WeightsError, match=problem) as caught:
        loader(files / name)
    assert name in str(caught.value)


def test_the_paper_s_pose_guider_is_loaded_as_such(tmp_path):
    path = saved(tmp_path / "pose_guider.pth", PaperPoseGuider(24))
    assert isinstance(aa.load_pose_guider(path), PaperPoseGuider)


def renamed(state, names):
    """The same tensors under modules' other names."""
    result = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        result[f"{names.get(module, module)}.{leaf}"] = tensor
    return result


def old_attention(state):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return renamed(
        state,
        {
            f"{part}.mid_block.attentions.0.{new}": f"{part}.mid_block.attentions.0.{name}"
            for part in ("encoder", "decoder")
            for new, name in old.items()
        },
    )


def original_names(state):
    """As Stable Diffusion's first code calls them, its attention's layers 1x1 convolutions."""
    names = _vae_modules(levels=2, layers=1, decoder=_RESNET)
    convolutions = {
        key: tensor[:, :, None, None] if tensor.ndim == 2 and ".attentions." in key else tensor
        for key, tensor in state.items()
    }
    return renamed(convolutions, names) | {"loss.logvar": torch.zeros(1)}


@pytest.mark.parametrize("naming", [dict, old_attention, original_names])
def test_the_vae_is_the_same_in_all_its_namings(naming, tmp_path):
    torch.manual_seed(1)
    vae = build_image_vae(TINY_VAE)
    state = vae.state_dict()
    torch.save(naming(state), tmp_path / "vae.pth")
    loaded = aa.load_image_vae(tmp_path / "vae.pth").state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())


def family(files, **changes):
    names = {
        "denoising_unet": "whole.safetensors",
        "reference_unet": "reference_unet.safetensors",
        "pose_guider": "pose_guider.pth",
        "vae": "image_vae.safetensors",
        "image_encoder": "clip.safetensors",
    }
    return {role: files / name for role, name in (names | changes).items()}


def test_a_family_is_loaded_whole(files):
    system = aa.load_animate_anyone(**family(files))
    assert longest_window(system.denoising_unet) == 8


def test_a_network_of_another_family_is_named(files, tmp_path):
    stranger = saved(tmp_path / "pose_guider.pth", PoseGuider(64))
    with pytest.raises(WeightsError, match="pose guider: has the width 64, the denoising U-Net needs 32"):
        aa.load_animate_anyone(**family(files, pose_guider=stranger))


@pytest.mark.parametrize(
    "name", ["whole.safetensors", "mm_sd_v15_v2.ckpt", "pose_guider.pth", "image_vae.safetensors"]
)
def test_files_are_converted_and_keep_their_configuration(files, tmp_path, name):
    target = convert(files / name, tmp_path)
    again = {
        "whole.safetensors": aa.load_denoising_unet,
        "mm_sd_v15_v2.ckpt": lambda path: aa.load_denoising_unet(files / "denoising_unet.safetensors", path),
        "pose_guider.pth": aa.load_pose_guider,
        "image_vae.safetensors": aa.load_image_vae,
    }[name](target)
    assert torch.float16 in {tensor.dtype for tensor in load.read_weights(target).state.values()}
    assert not any(parameter.isnan().any() for parameter in again.parameters())
