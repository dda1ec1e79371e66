"""Noise levels and Euler steps: official goldens, formulas, exact solutions."""

import math
from pathlib import Path

import pytest
import torch

from stableanimator_core.conformance.run import run_case
from stableanimator_core.sigmas import (
    initial_noise_scale,
    karras_sigmas,
    predicted_x0,
    sample_euler,
    scale_input,
    timestep_of,
)

GOLDENS = Path(__file__).parents[1] / "goldens"


def test_noise_levels_are_the_official_ones():
    rows = run_case(GOLDENS, "sigmas")
    assert len(rows) > 5
    assert [row for row in rows if not row.ok] == []


def test_levels_fall_strictly_from_the_largest_to_zero():
    sigmas = karras_sigmas(25)
    assert sigmas.shape == (26,)
    assert sigmas[0] == pytest.approx(700)
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_the_spacing_is_even_in_the_seventh_root():
    roots = karras_sigmas(9)[:-1].double() ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(8), rtol=1e-4, atol=0)


def test_one_step_goes_from_the_largest_level_straight_to_zero():
    assert karras_sigmas(1).tolist() == pytest.approx([700, 0])


def test_no_step_at_all_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        karras_sigmas(0)


def test_input_scale_and_prediction_invert_the_edm_formulas():
    """A network that knows the noise gives the clean latents back, whatever the level."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, generator=generator)
    for sigma in (0.01, 1.0, 30.0):
        level = torch.tensor(sigma)
        noisy = clean + sigma * noise
        v = (noise - sigma * clean) / math.sqrt(sigma**2 + 1)  # velocity of the variance-preserving form
        torch.testing.assert_close(predicted_x0(noisy, v, level), clean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(scale_input(noisy, level), noisy / math.sqrt(sigma**2 + 1))


def test_the_network_is_told_a_quarter_of_the_logarithm():
    assert timestep_of(torch.tensor([1.0, math.e**4])).tolist() == pytest.approx([0, 1])


def test_the_official_start_is_a_little_above_the_largest_level():
    assert float(initial_noise_scale(karras_sigmas(3))) == pytest.approx(math.sqrt(700**2 + 1))


def test_euler_is_exact_when_the_clean_latents_do_not_change():
    clean = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    start = clean + 700 * torch.randn(2, 4, generator=torch.Generator().manual_seed(2))
    result = sample_euler(lambda latents, sigma, step: clean, start, karras_sigmas(4))
    torch.testing.assert_close(result, clean, rtol=1e-4, atol=1e-4)


def test_euler_takes_the_steps_one_can_count_by_hand():
    """x' = (x - x0) / sigma with x0 = x / 2 is x' = x / (2 sigma): each step multiplies."""
    levels = torch.tensor([4.0, 2.0, 1.0])
    result = sample_euler(lambda latents, sigma, step: latents / 2, torch.tensor([8.0]), levels)
    assert result.item() == pytest.approx(8 * (1 - 2 / 8) * (1 - 1 / 4))


def test_the_hook_sees_every_step_and_its_x0_takes_the_step():
    seen = []

    def hook(step, x0):
        seen.append(step)
        return x0 * 0

    start = torch.tensor([7.0])
    result = sample_euler(lambda latents, sigma, step: latents + step, start, karras_sigmas(3), on_x0=hook)
    assert seen == [0, 1, 2]
    assert result.item() == pytest.approx(0, abs=1e-4)


def test_the_start_is_not_changed():
    start = torch.ones(3)
    sample_euler(lambda latents, sigma, step: latents * 0, start, karras_sigmas(2))
    assert torch.equal(start, torch.ones(3))
