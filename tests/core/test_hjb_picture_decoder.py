"""The face optimisation through Stable Diffusion's decoder, which knows single pictures only."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from hjb_models import boxes_for, noise, tiny_embedder

from stableanimator_core.hjb.decoder import CHECKPOINTING, Decoding, PictureDecoder, statistics_of
from stableanimator_core.hjb.options import HJBOptions
from stableanimator_core.hjb.refiner import HJBRefiner
from stableanimator_core.hjb.regions import Box

PART = Box(20, 41, 30, 50)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 32),
        layers_per_block=1,
    )
    for weight in vae.parameters():
        if weight.ndim == 1:
            weight.data += 0.3 * torch.randn_like(weight)
    return vae.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return noise(3, 4, 8, 8).double()


def test_it_decodes_what_diffusers_decodes(vae, latents):
    torch.testing.assert_close(Decoding(PictureDecoder(vae))(latents), vae.decode(latents).sample)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_the_gradient_is_that_of_diffusers_own_decode(checkpointing, vae, latents):
    def gradient(decode) -> torch.Tensor:
        variable = latents.clone().requires_grad_()
        return torch.autograd.grad(decode(variable).sin().sum(), variable)[0]

    ours = gradient(Decoding(PictureDecoder(vae), checkpointing=checkpointing))
    torch.testing.assert_close(ours, gradient(lambda x: vae.decode(x).sample))


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_a_part_equals_that_part_of_the_whole_picture(checkpointing, vae, latents):
    decoder = PictureDecoder(vae)
    decoding = Decoding(decoder, checkpointing=checkpointing, frozen=statistics_of(decoder, latents))
    whole = Decoding(decoder)(latents)
    expected = whole[..., PART.top : PART.bottom, PART.left : PART.right]
    torch.testing.assert_close(decoding(latents, PART), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_faces_come_nearer_and_the_vae_stays_as_it_is(mode, vae):
    vae = copy.deepcopy(vae).float()
    before = {key: weight.clone() for key, weight in vae.state_dict().items()}
    options = HJBOptions(mode=mode, iterations=6, budget_gib=1.0)
    refiner = HJBRefiner(PictureDecoder(vae), tiny_embedder(), torch.ones(8), boxes_for(3), options)
    refiner.begin([0.1, 0.0])
    refined = refiner(noise(3, 4, 8, 8), 0.1)
    losses = refiner.report.steps[-1].losses
    assert refined.isfinite().all()
    assert losses[-1] < losses[0]
    assert all(torch.equal(weight, before[key]) for key, weight in vae.state_dict().items())
