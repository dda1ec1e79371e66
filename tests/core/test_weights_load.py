"""Loading: official layouts fit completely, formats, 8-bit storage, wrong files in wrong slots."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.models import image_encoder, unet, vae
from stableanimator_core.models.face_encoder import FaceEncoder
from stableanimator_core.models.iresnet import IResNet
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.weights import load
from stableanimator_core.weights.files import Weights, save_weights
from stableanimator_core.weights.precision import cast_state, store_in_fp8
from stableanimator_core.weights.roles import kind_of

KEYS = Path(__file__).parents[1] / "keys"
KEY_COUNTS = {
    "unet": 1460,
    "pose_net": 19,
    "face_encoder": 56,
    "face_recognizer": 925,
    "vae": 374,
    "image_encoder": 520,
}
UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64, 64],
    "num_attention_heads": [2, 4, 4, 4],
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
}
FORMATS = [torch.float32, torch.float16, torch.bfloat16]


def official(role):
    """The official file's keys, shapes and dtypes, without numbers."""
    listed = json.loads(gzip.decompress((KEYS / f"{role}.json.gz").read_bytes()))
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in listed.items()
    }


def official_config(role, state):
    if role == "vae":
        return vae.config_from(state)
    if role.startswith("image_encoder"):
        return image_encoder.config_from(state)
    return load.model_config(role, Weights(state), Path(role))


@pytest.fixture
def pose_net_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "pose_net.pth"
    torch.save({key: torch.randn_like(value) for key, value in PoseNet(32).state_dict().items()}, path)
    return path


@pytest.fixture
def unet_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "unet.safetensors"
    save_weights(path, unet.build_unet(UNET).state_dict(), {"config": json.dumps(UNET)})
    return path


@pytest.mark.parametrize("role", KEY_COUNTS)
def test_every_key_of_the_official_file_is_taken_and_none_is_left(role):
    state = official(role)
    assert len(state) == KEY_COUNTS[role]
    network = load.build_empty(role, official_config(role, state))
    load.load_exactly(network, state, role)
    assert kind_of(state.keys()).role == role


@pytest.mark.parametrize("role", KEY_COUNTS)
def test_one_key_less_or_more_is_refused_with_counts_and_names(role):
    state = official(role)
    first, *_, last = state
    network = load.build_empty(role, official_config(role, state))
    state["one.too.many"] = state.pop(last)
    with pytest.raises(WeightsError) as caught:
        load.load_exactly(network, state, "some/file.pth")
    message = str(caught.value)
    fitting = f"{KEY_COUNTS[role] - 1} of {KEY_COUNTS[role]} keys"
    for part in ("some/file.pth", type(network).__name__, fitting):
        assert part in message
    assert f"1 missing (first: {last})" in message
    assert "1 unknown (first: one.too.many)" in message


def test_official_heads_and_widths_are_read_from_the_shapes():
    config = official_config("unet", official("unet"))
    assert tuple(config["num_attention_heads"]) == (5, 10, 20, 20)
    assert tuple(config["block_out_channels"]) == (320, 640, 1280, 1280)
    assert official_config("image_encoder", official("image_encoder"))["num_attention_heads"] == 16
    assert official_config("vae", official("vae"))["block_out_channels"] == [128, 256, 512, 512]


def test_another_shape_is_named_with_both_sizes(pose_net_file):
    state = PoseNet(32).state_dict() | {"final_proj.bias": torch.zeros(7)}
    with pytest.raises(WeightsError, match=r"1 of another shape .*bias \(7,\) instead of \(32,\)"):
        load.load_exactly(PoseNet(32), state, pose_net_file)


@pytest.mark.parametrize("dtype", [None, *FORMATS])
def test_loaded_numbers_are_the_file_s(pose_net_file, dtype):
    network = load.load_pose_net(pose_net_file, dtype)
    stored = torch.load(pose_net_file)
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == (dtype or torch.float32)
        assert torch.equal(tensor, stored[key].to(tensor.dtype))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_counters_stay_integers_in_every_format(tmp_path):
    config = {"layers": (1, 1, 1, 1), "widths": (8, 8, 8, 8), "stem_width": 8, "embedding_width": 16}
    torch.save(IResNet(**config).state_dict(), tmp_path / "glintr100_torch.pth")
    network = load.load_face_recognizer(tmp_path / "glintr100_torch.pth", torch.float16)
    kinds = {value.dtype for value in network.state_dict().values()}
    assert kinds == {torch.float16, torch.int64}
    assert network(torch.zeros(1, 3, 112, 112).half()).shape == (1, 16)


def test_face_encoder_comes_back_whole(tmp_path):
    config = {"token_width": 128, "image_width": 64, "depth": 2}
    torch.save(FaceEncoder(**config).state_dict(), tmp_path / "face_encoder.pth")
    network = load.load_face_encoder(tmp_path / "face_encoder.pth")
    assert network(torch.randn(2, 512), torch.randn(2, 1, 64)).shape == (2, 4, 128)


def test_a_network_loaded_in_inference_mode_lets_gradients_through(pose_net_file):
    with torch.inference_mode():
        network = load.load_pose_net(pose_net_file)
    poses = torch.rand(1, 3, 64, 64, requires_grad=True)
    network(poses).sum().backward()
    assert poses.grad.abs().sum() > 0


def test_loading_holds_the_numbers_once(tmp_path):
    import psutil

    network = nn.Linear(8192, 8192, bias=False, device="meta")
    save_weights(tmp_path / "a.safetensors", {"weight": torch.zeros(8192, 8192)})
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    state = load.read_weights(tmp_path / "a.safetensors").state
    load.load_exactly(network, state, "a")
    assert process.memory_info().rss - before < 100e6
    assert network.weight.data_ptr() == state["weight"].data_ptr()


def test_configuration_in_the_metadata_beats_the_shapes(unet_file):
    network = load.load_unet(unet_file)
    assert list(network.config.num_attention_heads) == UNET["num_attention_heads"]


@pytest.mark.parametrize(
    ("class_name", "counts"), [("UNetSpatioTemporalConditionModel", True), ("Another", False)]
)
def test_config_json_beside_the_file_counts_only_if_it_is_this_model_s(tmp_path, class_name, counts):
    config = UNET | {"num_attention_heads": [8, 8, 8, 8], "_class_name": class_name}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(unet.build_unet(UNET).state_dict(), tmp_path / "unet.pth")
    assert list(load.load_unet(tmp_path / "unet.pth").config.num_attention_heads) == [8 if counts else 1] * 4


def predict(network):
    generator = torch.Generator().manual_seed(1)
    shapes = (1, 2, 8, 8, 8), (1, 5, 64), (2, 32, 8, 8)
    sample, tokens, pose = (torch.randn(shape, generator=generator) for shape in shapes)
    times = torch.tensor([[6.0, 127.0, 0.02]])
    return unet.denoise(network, sample, torch.tensor(0.5), tokens, times, pose_features=pose)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("dtype", "far"), [(torch.float8_e4m3fn, 0.15), (torch.float8_e5m2, 0.3)])
def test_eight_bits_hold_the_matrices_only_and_still_predict(unet_file, dtype, far, plain):
    wanted = predict(load.load_unet(unet_file))
    network = store_in_fp8(load.load_unet(unet_file), dtype)
    unet.set_plain(network, plain)
    layers = (nn.Linear, nn.Conv2d, nn.Conv3d)
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, layers)}
    for parameter in network.parameters():
        assert parameter.dtype == (dtype if id(parameter) in matrices else torch.float32)
    error = (predict(network) - wanted).norm() / wanted.norm()
    assert 0 < error < far


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_u_net_loads_straight_into_eight_bits(unet_file, dtype):
    network = load.load_unet(unet_file, dtype)
    assert network.conv_in.weight.dtype == dtype
    assert network.conv_in.bias.dtype == torch.float16


def test_eight_bits_saturate_instead_of_turning_nan():
    layer = nn.Linear(2, 1)
    layer.weight.data.fill_(1e6)
    assert store_in_fp8(layer, torch.float8_e4m3fn).weight.float().tolist() == [[448.0, 448.0]]


def test_eight_bits_refuse_other_formats():
    with pytest.raises(InputError, match="not an 8-bit format"):
        store_in_fp8(nn.Linear(1, 1), torch.float16)


def test_a_file_of_mixed_formats_is_widened_but_its_counters_are_not():
    state = {
        "a": torch.ones(1, dtype=torch.float16),
        "b": torch.ones(1),
        "c": torch.ones((), dtype=torch.int64),
        "d": torch.ones(2, 2).to(torch.float8_e4m3fn),
    }
    kinds = [tensor.dtype for tensor in cast_state(state, None).values()]
    assert kinds == [torch.float32, torch.float32, torch.int64, torch.float8_e4m3fn]


LOADERS = {
    "unet": load.load_unet,
    "pose_net": load.load_pose_net,
    "face_encoder": load.load_face_encoder,
    "face_recognizer": load.load_face_recognizer,
    "vae": load.load_vae,
    "image_encoder": load.load_image_encoder,
}


@pytest.mark.parametrize("given", LOADERS)
def test_a_model_in_the_wrong_slot_is_called_by_its_name(tmp_path, given):
    path = tmp_path / "given.safetensors"
    save_weights(path, {key: torch.zeros(1) for key in official(given)})
    for slot, loader in LOADERS.items():
        if slot != given:
            with pytest.raises(WeightsError) as caught:
                loader(path)
            assert f"looks like {kind_of(official(given).keys()).label}" in str(caught.value)
            assert "given.safetensors" in str(caught.value)


def test_the_u_net_of_plain_svd_is_not_mistaken_for_the_adapted_one(tmp_path):
    state = {key: torch.zeros(1) for key in official("unet") if ".processor." not in key}
    torch.save(state, tmp_path / "unet.pth")
    with pytest.raises(WeightsError, match="without ID adapter"):
        load.load_unet(tmp_path / "unet.pth")


@pytest.mark.parametrize("loader", LOADERS.values())
def test_a_file_of_no_known_model_is_refused_with_its_first_keys(tmp_path, loader):
    torch.save({"alpha": torch.zeros(1), "beta": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="alpha, beta"):
        loader(tmp_path / "other.pth")


@pytest.mark.parametrize("role", LOADERS)
def test_a_right_file_with_wrong_shapes_is_a_named_error(tmp_path, role):
    torch.save({key: torch.zeros(1) for key in official(role)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="odd.pth"):
        LOADERS[role](tmp_path / "odd.pth")
