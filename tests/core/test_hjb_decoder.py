"""Decoding with gradient: whole, with less kept, and in part."""

from __future__ import annotations

import pytest
import torch
from hjb_models import noise, tiny_decoder

from stableanimator_core.hjb.budget import chunk_bytes
from stableanimator_core.hjb.decoder import CHECKPOINTING, Decoding, statistics_of
from stableanimator_core.hjb.memory import peak_bytes
from stableanimator_core.hjb.options import Setting
from stableanimator_core.hjb.regions import Box, plan_decoding

PARTS = [Box(20, 41, 30, 50), Box(0, 13, 50, 64), Box(31, 32, 7, 8), Box(0, 64, 0, 64)]


def gradient_of(decoding: Decoding, latents: torch.Tensor, pixels: Box | None = None) -> torch.Tensor:
    with torch.enable_grad():
        variable = latents.clone().requires_grad_()
        decoded = decoding(variable, pixels)
        return torch.autograd.grad(decoded.sin().sum(), variable)[0]


def diffusers_decoded(decoder, latents: torch.Tensor) -> torch.Tensor:
    return decoder(latents, torch.zeros(1, len(latents)), len(latents))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_it_decodes_what_diffusers_decodes(layers, frames):
    decoder, latents = tiny_decoder(layers=layers).double(), noise(frames, 4, 6, 8).double()
    torch.testing.assert_close(Decoding(decoder)(latents), diffusers_decoded(decoder, latents))


@pytest.mark.parametrize("checkpointing", CHECKPOINTING[1:])
@pytest.mark.parametrize("layers", [1, 2])
def test_checkpointing_does_not_change_a_bit_of_the_gradient(checkpointing, layers):
    decoder, latents = tiny_decoder(layers=layers), noise(3, 4, 6, 8)
    plain = gradient_of(Decoding(decoder), latents)
    assert torch.equal(gradient_of(Decoding(decoder, checkpointing=checkpointing), latents), plain)


def test_the_gradient_is_that_of_diffusers_own_forward():
    decoder, latents = tiny_decoder().double(), noise(3, 4, 6, 8).double()
    variable = latents.clone().requires_grad_()
    (expected,) = torch.autograd.grad(diffusers_decoded(decoder, variable).sin().sum(), variable)
    gradient = gradient_of(Decoding(decoder, checkpointing="activations"), latents)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_a_part_equals_that_part_of_the_whole_picture_when_the_statistics_are_its_own(part, checkpointing):
    decoder, latents = tiny_decoder(layers=2).double(), noise(3, 4, 8, 8).double()
    whole = Decoding(decoder)(latents)
    decoding = Decoding(decoder, checkpointing=checkpointing, frozen=statistics_of(decoder, latents))
    expected = whole[..., part.top : part.bottom, part.left : part.right]
    torch.testing.assert_close(decoding(latents, part), expected, rtol=1e-5, atol=1e-5)


def test_a_part_without_frozen_statistics_is_another_picture():
    decoder, latents, part = tiny_decoder(), noise(3, 4, 8, 8), PARTS[0]
    expected = Decoding(decoder)(latents)[..., part.top : part.bottom, part.left : part.right]
    assert (Decoding(decoder)(latents, part) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("checkpointing", CHECKPOINTING[1:])
def test_checkpointing_does_not_change_the_gradient_of_a_part(checkpointing):
    decoder, latents = tiny_decoder(), noise(3, 4, 8, 8)
    frozen = statistics_of(decoder, latents)
    plain = gradient_of(Decoding(decoder, frozen=frozen), latents, PARTS[0])
    again = gradient_of(Decoding(decoder, checkpointing=checkpointing, frozen=frozen), latents, PARTS[0])
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)


def test_a_part_needs_only_what_lies_near_it():
    plan = plan_decoding(tiny_decoder(layers=2), 64, 64, Box(192, 320, 192, 320))
    sizes = [block.inputs[0].size for block in plan.blocks]
    assert sizes == [(42, 42), (56, 56), (84, 84), (142, 142)]  # of 64, 128, 256 and 512


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_the_memory_counted_without_data_is_the_memory_used(checkpointing):
    decoder, latents = tiny_decoder(), noise(2, 4, 8, 8)
    setting = Setting(checkpointing, 2, torch.float32)
    predicted = chunk_bytes(decoder, setting, (2, 8, 8))
    used = peak_bytes(lambda: gradient_of(Decoding(decoder, checkpointing=checkpointing), latents))
    assert predicted == pytest.approx(used, rel=0.05)


def test_each_level_of_checkpointing_holds_less():
    decoder = tiny_decoder(layers=2)
    sizes = [chunk_bytes(decoder, Setting(level, 4, torch.float32), (4, 16, 16)) for level in CHECKPOINTING]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.5 * sizes[0]
