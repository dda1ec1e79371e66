"""Animate Anyone from photo to frames: official runs, bad input refused early, cancel, hooks, windows, DDIM."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from stableanimator_core.animate_anyone import ddim
from stableanimator_core.animate_anyone.pipeline import AnyoneOptions
from stableanimator_core.conformance.cases.animate_anyone_runs import options_of, system_of
from stableanimator_core.conformance.checks import absolute
from stableanimator_core.conformance.golden import open_golden
from stableanimator_core.conformance.run import run_case
from stableanimator_core.errors import InputError
from stableanimator_core.windows import (
    equal_weights,
    looped_windows,
    predict_in_windows,
    running_windows,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "animate_anyone"
SMALL = AnyoneOptions(num_steps=1, window_size=4, overlap=1)


@pytest.fixture(scope="module")
def golden():
    return open_golden(GOLDENS, "pipeline_long_c")


@pytest.fixture(scope="module")
def system(golden):
    return system_of(golden)


def animated(system, options=SMALL, frames=5, **changes):
    pictures = np.random.default_rng(0).integers(0, 255, (frames + 1, 32, 32, 3), dtype=np.uint8)
    arguments = {"height": 32, "width": 32, "options": options} | changes
    return system.animate(pictures[0], pictures[1:], **arguments)


@pytest.mark.parametrize("case", ["ddim", "context", "pipeline_long_c"])
def test_official_results_come_out(case):
    rows = run_case(GOLDENS, case)
    assert rows and all(row.ok for row in rows), [row for row in rows if not row.ok]


def test_the_facade_makes_the_official_clip(golden, system):
    run = golden.sidecar["run"]
    photo = golden["ref_image"].numpy()
    size = {"height": run["height"], "width": run["width"]}
    poses = golden["pose_images"].numpy()
    result = system.animate(photo, poses, **size, seed=run["seed"], options=options_of(golden))
    latents = result.latents.transpose(0, 1)
    wanted = golden["latents_after_step"][-1]
    assert float((latents - wanted).abs().max() / wanted.abs().max()) < 2e-4
    video = torch.from_numpy(result.frames).permute(3, 0, 1, 2)[None] / 255
    assert absolute("video", video, golden.expected("video"), 0.7 / 255).ok


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 36}, "multiple of 8"),
        ({"height": 48}, "stretched"),
        ({"options": replace(SMALL, num_steps=0)}, "Use 1 to 1000"),
        ({"options": replace(SMALL, overlap=4)}, "Set it between 0 and 3"),
        ({"options": replace(SMALL, window_size=33), "frames": 40}, "the motion modules know 32"),
        ({"noise": torch.zeros(5, 4, 8, 4)}, r"Give \[5, 4, 4, 4\]"),
        ({"frames": 0}, "at least one skeleton"),
    ],
)
def test_bad_settings_are_refused_before_a_network_runs(system, monkeypatch, changes, words):
    monkeypatch.setattr(system, "image_token", lambda _: pytest.fail("a network ran"))
    with pytest.raises(InputError, match=words):
        animated(system, **changes)


def test_the_same_seed_gives_the_same_clip_and_another_another(system):
    first, again, other = (animated(system, seed=seed).latents for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_run_can_be_cancelled_between_windows(system):
    class Cancelled(Exception):
        pass

    calls = []

    def on_window():
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        animated(system, on_window=on_window)
    assert len(calls) == 2


def test_each_step_s_x0_is_shown_and_a_changed_one_is_followed(system):
    seen = []

    def to_zero(step, x0):
        seen.append((step, tuple(x0.shape)))
        return torch.zeros_like(x0)

    result = animated(system, replace(SMALL, num_steps=2), on_x0=to_zero)
    assert seen == [(0, (5, 4, 4, 4)), (1, (5, 4, 4, 4))]
    assert not result.latents.any()  # the last step of two ends at alpha 1


def test_the_open_loop_does_not_come_back_to_the_first_frame():
    closed, opened = (replace(SMALL, loop=loop).windows(6) for loop in ("closed", "open"))
    assert closed == [[0, 1, 2, 3], [3, 4, 5, 0]]
    assert opened == [[0, 1, 2, 3], [2, 3, 4, 5]]


@pytest.mark.parametrize("windows_of", [looped_windows, running_windows])
@pytest.mark.parametrize("overlap", [0, 1, 3, 23])
def test_windows_hold_every_frame_and_none_twice(windows_of, overlap):
    for frames in (1, 23, 24, 25, 49, 120):
        windows = windows_of(frames, 24, overlap)
        assert set().union(*windows) == set(range(frames))
        assert all(len(window) == len(set(window)) == min(frames, 24) for window in windows)


def test_frames_of_several_windows_get_the_mean():
    values = {0: 1.0, 3: 4.0}
    windows = looped_windows(6, 4, 1)
    (mean,) = predict_in_windows(
        lambda window: (torch.full((4, 1), values[window[0]]),), windows, equal_weights
    )
    assert mean.flatten().tolist() == [2.5, 1.0, 1.0, 2.5, 4.0, 4.0]


@pytest.mark.parametrize("steps", [1, 7, 20, 25, 30, 61, 103, 121, 122, 1000])
def test_there_are_as_many_times_as_steps_and_none_is_negative(steps):
    times = ddim.trailing_timesteps(steps)
    assert len(times) == steps and times[0] == 999 and times[-1] >= 0
    assert all(later < earlier for earlier, later in pairwise(times))


def test_the_last_noise_level_holds_no_signal_and_the_first_stays():
    for spacing in ("linear", "scaled_linear"):
        alphas = ddim.alphas_cumprod(spacing)
        raw = ddim.alphas_cumprod(spacing, zero_snr=False)
        assert alphas[-1] == 0 and raw[-1] > 0
        assert alphas[0] == raw[0]
        assert (alphas.diff() < 0).all()


def test_a_perfect_prediction_is_sampled_exactly():
    clean, alphas = torch.randn(2, 4, 3, 3), ddim.alphas_cumprod()

    def v_of(latents, timestep, step):
        alpha = alphas[timestep]
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    sampled = ddim.sample_ddim(v_of, torch.randn(2, 4, 3, 3), 20)
    assert torch.allclose(sampled, clean, atol=1e-4)
