"""Windows over long clips: the official lists, every length covered, blending."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from stableanimator_core.conformance.golden import open_golden
from stableanimator_core.conformance.run import run_case
from stableanimator_core.errors import InputError
from stableanimator_core.windows import (
    anchored_windows,
    chunks,
    predict_in_windows,
    repeat_noise,
    triangular_weights,
)

GOLDENS = Path(__file__).parents[1] / "goldens"
LENGTHS = [1, 2, 5, 15, 16, 17, 28, 29, 40, 300, 4096]


def test_windows_and_weights_are_the_official_ones():
    rows = run_case(GOLDENS, "windows")
    assert len(rows) > 20
    assert [row for row in rows if not row.ok] == []


def test_where_the_official_code_crashes_or_gives_nan_ours_works_or_names_the_setting():
    troubled = [row for row in open_golden(GOLDENS, "windows").sidecar["table"] if row["outcome"] != "ok"]
    assert troubled
    for row in troubled:
        frames, size, overlap = row["num_frames"], row["tile_size"], row["tile_overlap"]
        try:
            windows = anchored_windows(frames, size, overlap)
        except InputError as error:
            assert error.what in ("overlap", "window_size")
        else:
            assert set(sum(windows, [])) == set(range(frames))


@pytest.mark.parametrize("num_frames", LENGTHS)
@pytest.mark.parametrize(("size", "overlap"), [(16, 4), (16, 1), (16, 15), (2, 1), (8, 6)])
def test_every_frame_of_any_length_is_covered_by_windows_of_one_size_that_begin_with_frame_0(
    num_frames, size, overlap
):
    windows = anchored_windows(num_frames, size, overlap)
    assert set().union(*windows) == set(range(num_frames))
    assert {len(window) for window in windows} == {min(size, num_frames)}
    for window in windows:
        assert window[0] == 0
        assert window == sorted(set(window))


@pytest.mark.parametrize("num_frames", [1, 2, 16])
def test_a_clip_that_fits_is_one_window(num_frames):
    assert anchored_windows(num_frames, 16, 4) == [list(range(num_frames))]


def test_the_last_window_is_moved_back_instead_of_cut_short():
    assert anchored_windows(10, 4, 1) == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9]]
    assert anchored_windows(9, 4, 1) == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 6, 7, 8]]


def test_the_number_of_windows_grows_with_the_clip_and_not_faster():
    assert len(anchored_windows(300, 16, 4)) == 25
    assert len(anchored_windows(3000, 16, 4)) == 250


@pytest.mark.parametrize(
    ("num_frames", "size", "overlap", "what"),
    [(0, 16, 4, "frames"), (17, 1, 0, "window_size"), (17, 0, 0, "window_size"), (17, 16, 0, "overlap")]
    + [(17, 16, 16, "overlap"), (17, 16, 20, "overlap"), (17, 16, -1, "overlap")],
)
def test_impossible_settings_are_refused_by_name_with_a_remedy(num_frames, size, overlap, what):
    with pytest.raises(InputError) as caught:
        anchored_windows(num_frames, size, overlap)
    assert caught.value.what == what
    assert caught.value.remedy


def test_weights_rise_to_the_middle_and_are_never_zero():
    assert triangular_weights(4).tolist() == pytest.approx([0.25, 0.75, 0.75, 0.25])
    weights = triangular_weights(15)
    assert torch.equal(weights, weights.flip(0))
    assert weights.argmax() == 7
    assert (weights > 0).all()


def test_blending_gives_back_what_does_not_depend_on_the_window():
    clip = torch.randn(40, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    (blended,) = predict_in_windows(lambda window: (clip[window],), anchored_windows(40, 16, 4))
    torch.testing.assert_close(blended, clip)


def test_blending_equals_the_weighted_mean_counted_frame_by_frame():
    windows = anchored_windows(11, 5, 2)
    generator = torch.Generator().manual_seed(0)
    predictions = {tuple(window): torch.randn(5, 3, generator=generator) for window in windows}
    (blended,) = predict_in_windows(lambda window: (predictions[tuple(window)],), windows)
    weight = [0.2, 0.6, 1.0, 0.6, 0.2]
    for frame in range(11):
        seen = [(w.index(frame), predictions[tuple(w)]) for w in windows if frame in w]
        expected = sum(weight[at] * values[at] for at, values in seen) / sum(weight[at] for at, _ in seen)
        torch.testing.assert_close(blended[frame], expected)


def test_both_guidance_halves_are_blended_alike():
    windows = anchored_windows(9, 4, 2)
    first, second = predict_in_windows(
        lambda window: (torch.tensor(window).float(), -torch.tensor(window).float()), windows
    )
    torch.testing.assert_close(first, torch.arange(9.0))
    torch.testing.assert_close(second, -first)


def test_a_single_window_is_passed_through_bit_for_bit():
    values = torch.randn(7, 2).half()
    (result,) = predict_in_windows(lambda window: (values,), [list(range(7))])
    assert result is values


def test_repeated_noise_comes_back_every_window_and_is_cut_to_length():
    noise = torch.randn(4, 2, 3)
    long = repeat_noise(noise, 10)
    assert long.shape == (10, 2, 3)
    assert torch.equal(long[4:8], noise)
    assert torch.equal(long[8:], noise[:2])
    assert torch.equal(repeat_noise(noise, 3), noise[:3])


@pytest.mark.parametrize(("size", "overlap"), [(4, 0), (4, 1), (4, 3), (1, 0), (100, 0)])
def test_chunks_cover_the_clip_in_order_with_the_overlap_asked_for(size, overlap):
    ranges = list(chunks(23, size, overlap))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 23
    assert all(0 < stop - start <= size for start, stop in ranges)
    for before, after in pairwise(ranges):
        assert after[0] == before[1] - overlap
