"""What the U-Net is told: the two guidance halves, time ids, noise on the photo."""

import pytest
import torch

from stableanimator_core import conditioning as cond


def example() -> cond.Conditioning:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 5, 8, generator=generator)
    return cond.Conditioning(
        tokens, torch.randn(1, 4, 2, 3, generator=generator), cond.added_time_ids(7, 127, 0.02)
    )


def test_the_unconditional_half_comes_first_and_knows_neither_photo_nor_face():
    one, pair = example(), example().both_halves()
    assert not pair.tokens[0].any()
    assert not pair.image_latents[0].any()
    assert torch.equal(pair.tokens[1:], one.tokens)
    assert torch.equal(pair.image_latents[1:], one.image_latents)


def test_both_halves_get_the_same_time_ids():
    ids = example().both_halves().added_time_ids
    assert ids.shape == (2, 3)
    assert torch.equal(ids[0], ids[1])


def test_the_frame_rate_goes_in_less_one():
    torch.testing.assert_close(cond.added_time_ids(7, 127, 0.02), torch.tensor([[6.0, 127.0, 0.02]]))


def test_face_tokens_follow_the_clip_token():
    clip, face = torch.ones(1, 1, 8), torch.full((1, 4, 8), 2.0)
    tokens = cond.join_tokens(clip, face)
    assert tokens[0, :, 0].tolist() == [1, 2, 2, 2, 2]


def test_without_a_face_zeros_take_its_place():
    tokens = cond.join_tokens(torch.ones(1, 1, 8), None)
    assert tokens.shape == (1, 1 + cond.NUM_FACE_TOKENS, 8)
    assert not tokens[:, 1:].any()


def test_noise_is_added_by_its_strength_and_the_photo_stays():
    pixels, noise = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert cond.augment(pixels, noise, 0.02).unique().item() == pytest.approx(0.02)
    assert not pixels.any()


def test_a_seed_means_the_same_noise_every_time():
    first, second = (cond.draw_noise((2, 3), torch.Generator("cpu").manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
