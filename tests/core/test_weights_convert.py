"""The converter: half the size, the same model, its papers in the metadata, and nothing overwritten."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch

from stableanimator_core import convert as converter
from stableanimator_core.convert import convert
from stableanimator_core.errors import WeightsError
from stableanimator_core.models.image_encoder import build_image_encoder
from stableanimator_core.models.iresnet import IResNet
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.unet import build_unet
from stableanimator_core.models.vae import build_vae
from stableanimator_core.weights.files import read_weights, save_weights
from stableanimator_core.weights.load import (
    load_face_recognizer,
    load_image_encoder,
    load_pose_net,
    load_unet,
    load_vae,
)

UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [32, 32, 32, 32],
    "num_attention_heads": [2, 2, 2, 2],
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
}


@pytest.fixture
def pose_net_file(tmp_path):
    torch.manual_seed(0)
    state = {key: torch.randn_like(value) for key, value in PoseNet(32).state_dict().items()}
    torch.save(state, tmp_path / "pose_net.pth")
    return tmp_path / "pose_net.pth"


@pytest.mark.parametrize(("name", "dtype"), converter.DTYPES.items())
def test_the_converted_file_is_the_same_model_in_the_format_asked_for(pose_net_file, tmp_path, name, dtype):
    target = convert(pose_net_file, tmp_path / "out", dtype=dtype)
    assert target == tmp_path / "out" / "pose_net.safetensors"
    original, converted = load_pose_net(pose_net_file, dtype), load_pose_net(target)
    for key, tensor in original.state_dict().items():
        assert converted.state_dict()[key].dtype == dtype
        assert torch.equal(converted.state_dict()[key], tensor)


def test_metadata_say_what_it_is_and_where_it_is_from(pose_net_file, tmp_path):
    metadata = read_weights(convert(pose_net_file, tmp_path / "out")).metadata
    assert metadata["stableanimator_role"] == "pose_net"
    assert json.loads(metadata["config"]) == {"out_channels": 32}
    assert metadata["source_file"] == "pose_net.pth"
    assert metadata["source_sha256"] == hashlib.sha256(pose_net_file.read_bytes()).hexdigest()


def test_a_configuration_given_once_is_found_again(tmp_path):
    """Heads cannot be read from shapes; the converted file remembers them."""
    torch.save(build_unet(UNET).state_dict(), tmp_path / "unet.pth")
    target = convert(tmp_path / "unet.pth", tmp_path / "out", config=UNET)
    again = convert(target, tmp_path / "again")
    assert list(load_unet(again).config.num_attention_heads) == [2, 2, 2, 2]
    assert list(load_unet(tmp_path / "unet.pth").config.num_attention_heads) == [1, 1, 1, 1]


def test_counters_and_numbers_too_large_keep_their_format(tmp_path):
    config = {"layers": (1, 1, 1, 1), "widths": (8, 8, 8, 8), "stem_width": 8, "embedding_width": 16}
    network = IResNet(**config)
    network.bn1.running_var.fill_(1e6)
    torch.save(network.state_dict(), tmp_path / "glintr100_torch.pth")
    target = convert(tmp_path / "glintr100_torch.pth", tmp_path / "out")
    state = read_weights(target).state
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    assert state["bn1.running_var"].dtype == torch.float32
    assert state["conv1.weight"].dtype == torch.float16
    assert load_face_recognizer(target).bn1.running_var.max() == 1e6


def test_svd_is_cut_down_to_the_parts_used(tmp_path):
    vae = build_vae({"down_block_types": ["DownEncoderBlock2D"] * 2, "block_out_channels": [32, 32]})
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = build_image_encoder(settings | {"image_size": 32, "patch_size": 16, "projection_dim": 8})
    folder = tmp_path / "SVD"
    save_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", vae.state_dict())
    config = {"config": json.dumps(encoder.config.to_dict())}
    save_weights(folder / "image_encoder" / "model.safetensors", encoder.state_dict(), config)
    target = convert(folder, tmp_path / "out")
    assert target.name == "SVD.safetensors"
    assert read_weights(target).metadata["stableanimator_role"] == "svd"
    assert load_vae(target).dtype == torch.float16
    assert load_image_encoder(target).config.num_attention_heads == 4
    again = convert(target, tmp_path / "again", dtype=torch.float32)
    assert load_vae(again).state_dict().keys() == vae.state_dict().keys()


def test_nothing_is_overwritten_unless_forced(pose_net_file, tmp_path):
    target = convert(pose_net_file, tmp_path)
    before = target.read_bytes()
    with pytest.raises(WeightsError, match="exists already"):
        convert(pose_net_file, tmp_path, dtype=torch.float32)
    assert target.read_bytes() == before
    convert(pose_net_file, tmp_path, dtype=torch.float32, force=True)
    assert target.read_bytes() != before
    with pytest.raises(WeightsError, match="exists already"):
        convert(target, tmp_path, force=True)  # onto itself


def test_an_incomplete_model_is_not_converted(pose_net_file, tmp_path):
    state = torch.load(pose_net_file)
    del state["conv_layers.4.bias"]
    torch.save(state, pose_net_file)
    with pytest.raises(WeightsError, match="conv_layers.4.bias"):
        convert(pose_net_file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused_with_the_choices(tmp_path):
    torch.save({"alpha": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="alpha.*pose_net"):
        convert(tmp_path / "other.pth", tmp_path / "out")


def test_the_command_converts_many_and_reports_each(pose_net_file, tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"")
    command = [sys.executable, "-m", "stableanimator_core.convert", str(tmp_path / "broken.pth")]
    command += [str(pose_net_file), "--out", str(tmp_path / "out"), "--dtype", "bf16"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "broken.pth: is empty" in result.stdout
    assert "pose_net.safetensors" in result.stdout
    assert load_pose_net(tmp_path / "out" / "pose_net.safetensors").scale.dtype == torch.bfloat16
