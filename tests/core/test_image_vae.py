"""The small picture VAE made of the small temporal one."""

import pytest
import torch

from stableanimator_core.demo_weights import VAE
from stableanimator_core.errors import InputError
from stableanimator_core.models.image_vae import image_vae_of
from stableanimator_core.models.vae import build_vae, decode_frames, decode_pictures, encode_mode
from stableanimator_core.training.small.normalised_vae import NormalisedVAE
from stableanimator_core.weights.animate_anyone import load_image_vae
from stableanimator_core.weights.files import save_weights
from stableanimator_core.weights.load import load_vae

NARROW = {**VAE, "block_out_channels": [32, 32, 32, 32], "norm_num_groups": 8}


def temporal_vae(layers_per_block=1):
    torch.manual_seed(0)
    return NormalisedVAE({**NARROW, "layers_per_block": layers_per_block}).vae.eval()


@pytest.mark.parametrize("layers_per_block", [1, 2])
@torch.no_grad()
def test_it_encodes_and_decodes_single_pictures_as_the_temporal_one(layers_per_block):
    vae = temporal_vae(layers_per_block)
    image_vae = image_vae_of(vae)
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    latents = encode_mode(vae, pixels)

    assert torch.equal(encode_mode(image_vae, pixels), latents)
    expected = decode_frames(vae, latents, num_frames=1)
    assert expected.std() > 0.01
    assert (decode_pictures(image_vae, latents) - expected).abs().max() < 1e-5


def test_a_folder_of_stable_video_diffusion_serves_as_animate_anyones_vae(tmp_path):
    state = {key: tensor.half() for key, tensor in temporal_vae().state_dict().items()}
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_weights(path, state, {"config": _config(NARROW)})
    loaded = load_image_vae(tmp_path, torch.float32)
    assert loaded.config.norm_num_groups == 8
    latents = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        expected = decode_frames(load_vae(tmp_path, torch.float32), latents, num_frames=1)
        assert (decode_pictures(loaded, latents) - expected).abs().max() < 1e-5


def test_a_temporal_vae_whose_temporal_layers_work_is_refused():
    with pytest.raises(InputError, match="not the identity"):
        image_vae_of(build_vae(NARROW))
    vae = temporal_vae()
    vae.decoder.time_conv_out.bias.data[0] = 0.5
    with pytest.raises(InputError, match="1, first time_conv_out"):
        image_vae_of(vae)


def _config(config):
    import json

    return json.dumps({"_class_name": "AutoencoderKLTemporalDecoder", **config})
