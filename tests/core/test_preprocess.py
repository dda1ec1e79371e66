"""Pictures into pixels: CLIP's official preprocessing, sizes, bad pictures refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stableanimator_core import preprocess
from stableanimator_core.conformance.run import run_case
from stableanimator_core.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens"


def test_clip_pixels_are_the_official_ones():
    rows = run_case(GOLDENS, "clip_preprocess")
    assert rows
    assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [(500, 512, "512 x 512"), (576, 1000, "576 x 1024"), (100, 90, "128 x 64"), (10, 10, "64 x 64")]
    + [(0, 512, "64 x 512"), (512, -64, "512 x 64")],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(width, height, nearest):
    with pytest.raises(InputError, match=f"use {nearest}|Use {nearest}"):
        preprocess.check_size(height, width)


@pytest.mark.parametrize("side", [64, 512, 1024])
def test_multiples_of_64_are_taken(side):
    preprocess.check_size(side, 576)


@pytest.mark.parametrize(
    "shape", [(4, 8), (1, 8, 8, 1), (1, 8, 8, 5), (0, 8, 8, 3), (1, 0, 8, 3), (1, 1, 8, 8, 3)]
)
def test_tensors_that_are_no_pictures_are_refused_by_the_inputs_name_and_shape(shape):
    with pytest.raises(InputError) as caught:
        preprocess.check_pictures(torch.zeros(shape), "poses")
    assert caught.value.what == "poses"
    assert str(list(shape)) in caught.value.problem


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_pixel_that_is_no_number_is_refused_with_its_frame(value):
    pictures = torch.zeros(5, 4, 4, 3)
    pictures[3, 1, 2, 0] = value
    with pytest.raises(InputError, match="frame 3"):
        preprocess.check_pictures(pictures, "image")


def test_one_picture_may_come_without_its_first_axis_and_alpha_is_dropped():
    assert preprocess.check_pictures(torch.rand(6, 7, 4), "image").shape == (1, 6, 7, 3)


def test_eight_bit_pictures_survive_the_way_there_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(preprocess.to_uint8(preprocess.from_uint8(values)), values)


def test_pixels_beyond_the_range_are_cut_not_wrapped():
    assert preprocess.to_uint8(torch.tensor([[[[-0.5, 1.5, 0.5]]]])).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (2, 300), (900, 30), (64, 64)])
def test_clip_gets_its_square_from_any_aspect(height, width):
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    pixels = preprocess.clip_pixels(picture)
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels.isfinite().all()


def test_a_plain_colour_stays_that_colour_for_clip():
    pixels = preprocess.clip_pixels(np.full((300, 500, 3), 255, np.uint8))
    mean, std = (np.array(values) for values in (preprocess.CLIP_MEAN, preprocess.CLIP_STD))
    np.testing.assert_allclose(pixels[0, :, 100, 100], (1 - mean) / std, rtol=1e-4)


def test_a_photo_one_pixel_wide_is_refused():
    with pytest.raises(InputError, match="1 x 9 pixels"):
        preprocess.check_photo(np.zeros((9, 1, 3), np.uint8))


def test_the_reference_is_fitted_to_the_output_in_minus_one_to_one():
    pixels = preprocess.reference_pixels(np.full((50, 80, 3), 255, np.uint8), 128, 64)
    assert pixels.shape == (1, 3, 128, 64)
    assert torch.equal(pixels, torch.ones_like(pixels))


def test_skeletons_of_the_right_size_are_taken_as_they_are():
    poses = np.random.default_rng(0).integers(0, 255, (2, 64, 128, 3), dtype=np.uint8)
    pixels = preprocess.pose_pixels(poses, 64, 128)
    assert pixels.shape == (2, 3, 64, 128)
    np.testing.assert_array_equal(((pixels + 1) / 2 * 255).round().permute(0, 2, 3, 1).numpy(), poses)


def test_skeletons_of_another_size_but_the_same_shape_are_resized():
    assert preprocess.pose_pixels(np.zeros((2, 256, 512, 3), np.uint8), 64, 128).shape == (2, 3, 64, 128)


def test_skeletons_of_another_aspect_are_refused_with_both_sizes():
    with pytest.raises(InputError, match="512 x 512, the output is 576 x 1024"):
        preprocess.pose_pixels(np.zeros((2, 512, 512, 3), np.uint8), 1024, 576)
