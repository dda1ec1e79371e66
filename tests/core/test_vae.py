"""The VAE's helpers and its configuration from shapes."""

import pytest
import torch

from stableanimator_core.models.vae import SCALING_FACTOR, build_vae, config_from, decode_frames, encode_mode

CONFIG = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return build_vae(CONFIG).eval().requires_grad_(False)


def test_configuration_is_read_from_the_shapes(vae):
    config = config_from(vae.state_dict())
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert config["scaling_factor"] == SCALING_FACTOR
    assert build_vae(config).state_dict().keys() == vae.state_dict().keys()


def test_saved_configurations_with_private_entries_build(vae):
    assert build_vae(dict(vae.config)).config.latent_channels == 4


def test_the_mode_is_the_mean_and_has_no_chance_in_it(vae):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(encode_mode(vae, pixels), encode_mode(vae, pixels))
    assert torch.equal(encode_mode(vae, pixels), vae.encode(pixels).latent_dist.mean)
    assert encode_mode(vae, pixels).shape == (2, 4, 8, 8)


def test_frames_mix_in_time_only_inside_a_group(vae):
    latents = torch.randn(4, 4, 4, 4)
    changed = latents.clone()
    changed[3] += 1
    together, apart = (
        [decode_frames(vae, latents_, group) for latents_ in (latents, changed)] for group in (4, 2)
    )
    assert together[0].shape == (4, 3, 8, 8)
    assert not torch.equal(together[0][0], together[1][0])
    assert torch.equal(apart[0][:2], apart[1][:2])


def test_inputs_follow_the_network_s_format(vae):
    wide = build_vae(CONFIG).double().requires_grad_(False)
    assert encode_mode(wide, torch.zeros(1, 3, 16, 16)).dtype == torch.float64
    assert decode_frames(wide, torch.zeros(1, 4, 4, 4), 1).dtype == torch.float64
