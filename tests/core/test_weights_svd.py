"""Stable Video Diffusion's layouts: single file, diffusers folder, parts on their own; there and back."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from stableanimator_core.errors import WeightsError
from stableanimator_core.models.image_encoder import build_image_encoder
from stableanimator_core.models.vae import build_vae, decode_frames, encode_mode
from stableanimator_core.weights import svd_layout
from stableanimator_core.weights.files import save_weights
from stableanimator_core.weights.load import load_image_encoder, load_vae
from stableanimator_core.weights.svd import Part, Svd, open_svd, single_file

KEYS = Path(__file__).parents[1] / "keys"
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "block_out_channels": [32, 64, 64],
    "layers_per_block": 2,
    "latent_channels": 4,
}
IMAGE_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "projection_dim": 48,
    "hidden_act": "gelu",
}


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def svd(request):
    torch.manual_seed(0)
    config = VAE | {"layers_per_block": request.param}
    vae = build_vae(config).eval()
    for parameter in vae.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # no layer stays at its neutral start
    encoder = build_image_encoder(IMAGE_ENCODER)
    here = Path("here")
    return Svd(Part(vae.state_dict(), config, here), Part(encoder.state_dict(), IMAGE_ENCODER, here))


@pytest.fixture
def folder(svd, tmp_path):
    """The diffusers folder."""
    names = {"vae": "AutoencoderKLTemporalDecoder", "image_encoder": "CLIPVisionModelWithProjection"}
    stems = {"vae": "diffusion_pytorch_model", "image_encoder": "model"}
    for part, (name, class_name) in zip(svd, names.items(), strict=True):
        save_weights(tmp_path / "SVD" / name / f"{stems[name]}.fp16.safetensors", part.state)
        named = {"_class_name": class_name} if name == "vae" else {"architectures": [class_name]}
        (tmp_path / "SVD" / name / "config.json").write_text(json.dumps(part.config | named))
    return tmp_path / "SVD"


@pytest.fixture
def checkpoint(svd, tmp_path):
    """The single file."""
    weights = single_file(svd)
    path = tmp_path / "svd_xt.safetensors"
    unused = ("model.diffusion_model.out.2.weight", "conditioner.embedders.0.open_clip.model.ln_final.bias")
    others = dict.fromkeys(unused, torch.ones(1))
    save_weights(path, weights.state | others, weights.metadata)
    return path


def official(role):
    listed = json.loads(gzip.decompress((KEYS / f"{role}.json.gz").read_bytes()))
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()}


def same(got, wanted):
    return got.keys() == wanted.keys() and all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_official_vae_has_the_single_file_s_names():
    names = svd_layout.vae_to_single_file(official("vae"))
    for key, shape in {
        "encoder.down.0.block.1.conv2.weight": (128, 128, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.2.downsample.conv.bias": (512,),
        "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "decoder.mid.block_2.time_stack.in_layers.2.weight": (512, 512, 3, 1, 1),
        "decoder.mid.block_1.mix_factor": (1,),
        "decoder.up.3.block.0.time_stack.out_layers.0.weight": (512,),
        "decoder.up.0.block.2.mix_factor": (1,),
        "decoder.up.1.upsample.conv.weight": (256, 256, 3, 3),
        "decoder.norm_out.weight": (128,),
        "decoder.conv_out.time_mix_conv.weight": (3, 3, 3, 1, 1),
    }.items():
        assert tuple(names[key].shape) == shape
    assert len(names) == 374 - 2
    assert not any("quant_conv" in key or "resnets" in key for key in names)


def test_official_layouts_survive_the_way_there_and_back():
    for role, there, back in (
        ("vae", svd_layout.vae_to_single_file, svd_layout.vae_to_diffusers),
        ("image_encoder", svd_layout.image_encoder_to_single_file, svd_layout.image_encoder_to_transformers),
    ):
        state = official(role)
        returned = back(there(state))
        assert {key: value.shape for key, value in returned.items()} == {k: v.shape for k, v in state.items()}


def test_image_encoder_returns_bit_for_bit(svd):
    there = svd_layout.image_encoder_to_single_file(svd.image_encoder.state)
    assert there["transformer.resblocks.1.attn.in_proj_weight"].shape == (96, 32)
    assert there["proj"].shape == (32, 48)
    assert same(svd_layout.image_encoder_to_transformers(there), svd.image_encoder.state)


def test_folding_quant_conv_changes_no_result(svd):
    folded = svd_layout.vae_to_diffusers(svd_layout.vae_to_single_file(svd.vae.state))
    mixing = folded["quant_conv.weight"].flatten(1)
    assert torch.equal(mixing, torch.eye(8))
    assert not same(folded, svd.vae.state)
    before, after = build_vae(svd.vae.config).eval(), build_vae(svd.vae.config).eval()
    before.load_state_dict(svd.vae.state)
    after.load_state_dict(folded)
    pixels, latents = torch.rand(1, 3, 32, 32), torch.randn(3, 4, 4, 4)
    with torch.no_grad():
        modes = [encode_mode(vae, pixels) for vae in (after, before)]
        torch.testing.assert_close(*modes, rtol=1e-4, atol=1e-5)
        assert torch.equal(decode_frames(after, latents, 3), decode_frames(before, latents, 3))


def test_a_second_way_there_and_back_is_bit_for_bit(svd):
    once = svd_layout.vae_to_diffusers(svd_layout.vae_to_single_file(svd.vae.state))
    assert same(svd_layout.vae_to_diffusers(svd_layout.vae_to_single_file(once)), once)


def test_folder_and_single_file_give_the_same_networks(svd, folder, checkpoint):
    from_folder, from_file = open_svd(folder), open_svd(checkpoint)
    assert same(from_folder.vae.state, svd.vae.state)
    assert same(from_folder.image_encoder.state, from_file.image_encoder.state)
    for path in (folder, checkpoint):
        vae, encoder = load_vae(path), load_image_encoder(path)
        assert list(vae.config.block_out_channels) == VAE["block_out_channels"]
        assert encoder.config.num_attention_heads == 4
        with torch.no_grad():
            pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
            embedding = encoder(pixels).image_embeds
            assert embedding.shape == (1, 48)
        assert embedding.isfinite().all()


@pytest.mark.parametrize("part", ["vae", "image_encoder"])
def test_a_part_s_own_folder_or_file_will_do(svd, folder, part):
    loader = {"vae": load_vae, "image_encoder": load_image_encoder}[part]
    file = next((folder / part).glob("*.safetensors"))
    for path in (folder / part, file):
        assert same(loader(path).state_dict(), getattr(svd, part).state)


def test_the_encoder_made_for_the_picture_is_preferred_with_its_quant_conv(svd, tmp_path):
    """In svd_xt.safetensors the encoder of the picture is stored apart; diffusers' VAE was made from that."""
    whole = single_file(svd)
    unfolded = {key: value for key, value in svd.vae.state.items() if key.startswith("quant_conv.")}
    plain = {key: value for key, value in svd.vae.state.items() if "quant_conv" not in key}
    prefix = "conditioner.embedders.3.encoder."
    unfolded |= svd_layout.vae_to_single_file(plain)
    picture = {prefix + key: value for key, value in unfolded.items()}
    decoder = {key: value for key, value in whole.state.items() if "first_stage_model.encoder" not in key}
    save_weights(tmp_path / "svd_xt.safetensors", decoder | picture, whole.metadata)
    found = open_svd(tmp_path / "svd_xt.safetensors").vae.state
    assert found.keys() == svd.vae.state.keys()
    chosen = {key: value for key, value in svd.vae.state.items() if not key.startswith("decoder.")}
    assert same({key: found[key] for key in chosen}, chosen)


def test_a_middle_block_that_cannot_be_left_out_is_an_error(svd):
    state = svd_layout.vae_to_single_file(svd.vae.state)
    if svd.vae.config["layers_per_block"] == 2:
        return
    state["decoder.mid.block_2.conv2.bias"] = torch.ones_like(state["decoder.mid.block_2.conv2.bias"])
    with pytest.raises(WeightsError, match="two middle blocks"):
        svd_layout.vae_to_diffusers(state)


def test_an_incomplete_folder_lists_what_was_looked_for(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(WeightsError, match="vae/diffusion_pytorch_model.fp16.safetensors"):
        open_svd(tmp_path)


def test_old_position_numbers_in_the_file_are_passed_over(svd, tmp_path):
    state = svd.image_encoder.state | {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_weights(tmp_path / "a.safetensors", state, {"config": json.dumps(IMAGE_ENCODER)})
    assert same(load_image_encoder(tmp_path / "a.safetensors").state_dict(), svd.image_encoder.state)
