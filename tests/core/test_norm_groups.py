"""Narrow networks with fewer groups in their group norms than Stable Video Diffusion's 32."""

import json

import pytest
import torch

from stableanimator_core.demo_weights import UNET, VAE
from stableanimator_core.models.unet import build_unet
from stableanimator_core.models.vae import build_vae
from stableanimator_core.weights import load
from stableanimator_core.weights.files import save_weights


def _groups(network):
    return {module.num_groups for module in network.modules() if isinstance(module, torch.nn.GroupNorm)}


@pytest.mark.parametrize(("build", "config"), [(build_unet, UNET), (build_vae, VAE)])
def test_the_configuration_says_how_many_groups_and_32_is_the_default(build, config):
    assert _groups(build(config)) == {32}
    assert _groups(build({**config, "norm_num_groups": 8})) == {8}


@pytest.mark.parametrize(("build", "config"), [(build_unet, UNET), (build_vae, VAE)])
def test_a_network_built_from_anothers_configuration_has_its_groups(build, config):
    first = build({**config, "norm_num_groups": 8})

    again = build({key: value for key, value in dict(first.config).items() if not key.startswith("_")})

    assert _groups(again) == {8}
    assert again.state_dict().keys() == build(config).state_dict().keys()


def test_a_file_keeps_its_groups(tmp_path):
    config = {**UNET, "norm_num_groups": 8}
    save_weights(
        tmp_path / "unet.safetensors", build_unet(config).state_dict(), {"config": json.dumps(config)}
    )

    assert _groups(load.load_unet(tmp_path / "unet.safetensors")) == {8}


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        build_vae({**VAE, "norm_num_groups": 7})
