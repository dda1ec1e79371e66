"""The refiner a sampler calls: when it works, what it leaves behind, what it does when memory runs out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hjb_models import boxes_for, noise, tiny_decoder, tiny_embedder

from stableanimator_core.errors import InputError, NoFaceError
from stableanimator_core.hjb.copies import usable_copy
from stableanimator_core.hjb.decoder import Decoding
from stableanimator_core.hjb.identity_loss import IdentityLoss
from stableanimator_core.hjb.options import HJBOptions
from stableanimator_core.hjb.plot import plot_report
from stableanimator_core.hjb.refine import Iteration
from stableanimator_core.hjb.refiner import HJBRefiner
from stableanimator_core.hjb.regions import face_region
from stableanimator_core.sigmas import karras_sigmas

SIGMAS = karras_sigmas(25)


def refiner_for(num_frames: int = 2, **options) -> HJBRefiner:
    refiner = HJBRefiner(
        tiny_decoder(), tiny_embedder(), noise(8, seed=3), boxes_for(num_frames), HJBOptions(**options)
    )
    refiner.begin(SIGMAS)
    return refiner


def one_step(refiner: HJBRefiner, x0: torch.Tensor, step: int = 15) -> torch.Tensor:
    return refiner(x0, float(SIGMAS[step]), step)


def bits_of(*modules: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def active_steps(num_steps: int = 25, **options) -> list[int]:
    sigmas = karras_sigmas(num_steps).tolist()
    return [step for step in range(num_steps) if HJBOptions(**options).active(step, sigmas[step], num_steps)]


def test_by_default_the_published_steps_are_active_and_a_share_of_other_counts():
    assert active_steps() == list(range(21))
    assert active_steps(50) == list(range(41))
    assert active_steps(4, start_step=1, end_step=2) == [1, 2]
    assert active_steps(iterations=0) == []


@pytest.mark.parametrize("mode", ["late", "fast"])
def test_late_and_fast_leave_out_the_noisy_steps(mode):
    assert active_steps(mode=mode) == list(range(14, 21))  # sigma is 10.1 at step 13
    assert active_steps(mode=mode, late_sigma=10.5) == list(range(13, 21))
    assert all(karras_sigmas(40)[step] <= 10 for step in active_steps(40, mode=mode))


def test_the_learning_rate_falls_to_zero_at_the_last_step_whatever_the_active_ones_are():
    options = HJBOptions(start_step=5, end_step=9)
    assert options.learning_rate_at(10, 25) == pytest.approx(0.06)
    assert options.learning_rate_at(25, 25) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": -1}, {"learning_rate": 0}, {"chunk": 0}, {"start_percent": 0.9}, {"budget_gib": 0}],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(InputError, match="HJB"):
        HJBOptions(**wrong)


@pytest.mark.parametrize("mode", ["exact", "late", "fast"])
def test_the_faces_come_nearer_to_the_reference(mode):
    refiner, x0 = refiner_for(3, mode=mode, iterations=5, statistics_every=1), noise(3, 4, 8, 8)
    for step in range(17, 21):
        x0 = one_step(refiner, x0, step)
    steps = refiner.report.steps
    assert [entry.step for entry in steps] == list(range(17, 21))
    assert steps[-1].losses[-1] < steps[0].losses[0] - 0.02
    assert steps[-1].cosine_after is not None and np.mean(steps[-1].cosine_after) > np.mean(steps[0].before)


def test_an_inactive_step_gives_the_very_same_latents():
    x0 = noise(2, 4, 8, 8)
    assert one_step(refiner_for(), x0, step=22) is x0
    assert one_step(refiner_for(mode="late"), x0, step=3) is x0


def test_fast_leaves_latents_away_from_the_face_untouched():
    x0 = noise(2, 4, 16, 16)
    moved = one_step(refiner_for(mode="fast", region_margin=1), x0) != x0
    region = face_region(boxes_for(2), 16, 16, 1).expand_as(x0).bool()
    assert moved[region].all() and not moved[~region].any()
    assert (one_step(refiner_for(), x0) != x0).float().mean() > 0.99  # as published: everything moves


def test_fast_takes_its_statistics_anew_every_so_many_steps(monkeypatch):
    forgotten = []
    forget = IdentityLoss.forget_statistics
    monkeypatch.setattr(IdentityLoss, "forget_statistics", lambda self: (forgotten.append(1), forget(self)))
    refiner, x0 = refiner_for(mode="fast", iterations=1, statistics_every=2), noise(2, 4, 8, 8)
    counts = []
    for step in range(14, 19):
        x0 = one_step(refiner, x0, step)
        counts.append(len(forgotten))
    assert counts == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_it_works_under_inference_mode_with_networks_loaded_there_and_changes_none_of_them(mode):
    expected = one_step(refiner_for(mode=mode), noise(2, 4, 8, 8))
    with torch.inference_mode():
        decoder, embedder = tiny_decoder(), tiny_embedder()
        assert next(decoder.parameters()).is_inference()
        before = bits_of(decoder, embedder)
        options = HJBOptions(mode=mode)
        refiner = HJBRefiner(decoder, embedder, noise(8, seed=3), boxes_for(2), options)
        refiner.begin(SIGMAS)
        x0 = noise(2, 4, 8, 8)
        refined = one_step(refiner, x0)
        assert torch.equal(x0, noise(2, 4, 8, 8))
        assert all(torch.equal(a, b) for a, b in zip(before, bits_of(decoder, embedder), strict=True))
    torch.testing.assert_close(refined.clone(), expected)


def test_networks_in_training_mode_and_of_other_dtypes_are_used_as_copies():
    decoder, embedder = tiny_decoder().half(), tiny_embedder().train()
    before = bits_of(decoder, embedder)
    refiner = HJBRefiner(decoder, embedder, noise(8, seed=3), boxes_for(2), HJBOptions(precision="fp32"))
    refiner.begin(SIGMAS)
    one_step(refiner, noise(2, 4, 8, 8))
    assert embedder.training and next(decoder.parameters()).dtype == torch.float16
    assert all(torch.equal(a, b) for a, b in zip(before, bits_of(decoder, embedder), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder.modules())


def test_a_network_that_can_be_used_as_it_is_is_not_copied():
    decoder = tiny_decoder()
    assert usable_copy(decoder, dtype=torch.float32, device="cpu") is decoder
    assert usable_copy(decoder, dtype=torch.bfloat16) is not decoder


def test_a_cancel_stops_between_iterations_and_lets_go_of_everything():
    told = []

    def cancel(step: int, iteration: Iteration) -> None:
        told.append((step, iteration.index))
        if iteration.index == 1:
            raise KeyboardInterrupt

    refiner = refiner_for()
    refiner.on_iteration = cancel
    with pytest.raises(KeyboardInterrupt):
        one_step(refiner, noise(2, 4, 8, 8))
    assert told == [(15, 0), (15, 1)]
    assert refiner._loss is None


def test_after_the_last_active_step_nothing_is_held():
    refiner = refiner_for(iterations=1)
    one_step(refiner, noise(2, 4, 8, 8), step=19)
    assert refiner._loss is not None
    one_step(refiner, noise(2, 4, 8, 8), step=20)
    assert refiner._loss is None


def test_two_runs_are_equal_to_the_bit():
    refiner, x0 = refiner_for(), noise(2, 4, 8, 8)
    first = one_step(refiner, x0)
    refiner.begin(SIGMAS)
    assert torch.equal(one_step(refiner, x0), first)


def test_a_clip_with_a_batch_axis_and_a_step_found_by_its_noise_level_give_the_same():
    x0 = noise(2, 4, 8, 8)
    refiner = refiner_for()
    assert torch.equal(refiner(x0[None], float(SIGMAS[15]))[0], one_step(refiner_for(), x0))
    assert refiner.report.steps[0].step == 15
    assert refiner.step_of(float(SIGMAS[15]) * 0.95) == 15  # between two steps, as second-order samplers ask


def run_out_of_memory(monkeypatch, *, until: callable) -> None:
    """The decoder runs out of memory for each setting for which `until` is false."""
    decode = Decoding.__call__

    def call(self, latents, pixels=None):
        if torch.is_grad_enabled() and not until(self, latents):
            raise torch.OutOfMemoryError("simulated")
        return decode(self, latents, pixels)

    monkeypatch.setattr(Decoding, "__call__", call)


def test_out_of_memory_steps_down_and_goes_on_with_the_same_result(monkeypatch):
    x0 = noise(4, 4, 8, 8)
    expected = one_step(refiner_for(4), x0)
    run_out_of_memory(monkeypatch, until=lambda decoding, latents: decoding.checkpointing == "resblock")
    refiner = refiner_for(4, checkpointing="none")
    assert torch.equal(one_step(refiner, x0), expected)
    assert "resblock" in refiner.report.steps[0].setting
    assert len(refiner.report.warnings) == 3
    one_step(refiner, x0, step=16)
    assert len(refiner.report.warnings) == 3  # what was learnt is kept


def test_out_of_memory_goes_on_to_settings_that_change_the_result_and_says_so(monkeypatch):
    run_out_of_memory(monkeypatch, until=lambda decoding, latents: len(latents) <= 2)
    refiner = refiner_for(4)
    one_step(refiner, noise(4, 4, 8, 8))
    assert "2 at a time, bfloat16" in refiner.report.steps[0].setting
    assert any("bfloat16" in warning for warning in refiner.report.warnings)
    assert any("2 frames are decoded at a time" in warning for warning in refiner.report.warnings)


def test_when_nothing_fits_sampling_goes_on_without_the_optimisation_and_says_so(monkeypatch):
    run_out_of_memory(monkeypatch, until=lambda decoding, latents: False)
    refiner, x0 = refiner_for(), noise(2, 4, 8, 8)
    assert torch.equal(one_step(refiner, x0), x0)
    assert "not optimised any more" in refiner.report.warnings[-1]
    assert one_step(refiner, x0, step=16) is x0
    assert refiner.report.steps == [] and refiner._loss is None


def test_a_budget_picks_the_fastest_setting_that_fits():
    def setting(budget):
        refiner = refiner_for(budget_gib=budget)
        one_step(refiner, noise(2, 4, 8, 8))
        return refiner.report.steps[0].setting

    assert setting(None).endswith("activations")
    assert setting(100.0).endswith("none")
    assert setting(0.51).endswith(("activations", "block"))
    assert setting(0.01).endswith("resblock")


def test_nan_latents_are_left_as_they_are_with_a_warning():
    x0 = noise(2, 4, 8, 8)
    x0[0, 0, 0, 0] = float("nan")
    refiner = refiner_for()
    refined = one_step(refiner, x0)
    assert torch.equal(refined.nan_to_num(7.0), x0.nan_to_num(7.0))
    assert any("not finite" in warning for warning in refiner.report.warnings)


def test_a_wrong_number_of_frames_no_face_and_an_empty_identity_are_refused_by_name():
    with pytest.raises(InputError, match="for 2 frames, the clip has 3"):
        one_step(refiner_for(2), noise(3, 4, 8, 8))
    refiner = HJBRefiner(tiny_decoder(), tiny_embedder(), noise(8), [[], []])
    refiner.begin(SIGMAS)
    with pytest.raises(NoFaceError):
        one_step(refiner, noise(2, 4, 8, 8))
    with pytest.raises(InputError, match="identity"):
        HJBRefiner(tiny_decoder(), tiny_embedder(), torch.zeros(8), boxes_for(2))


def test_the_report_is_plain_data_a_text_and_a_picture():
    boxes = [*boxes_for(2), []]
    refiner = HJBRefiner(
        tiny_decoder(), tiny_embedder(), noise(8, seed=3), boxes, HJBOptions(iterations=2, measure="every")
    )
    refiner.begin(SIGMAS)
    x0 = noise(3, 4, 8, 8)
    empty = plot_report(refiner.report)
    for step in (3, 4):
        x0 = one_step(refiner, x0, step)
    report = refiner.report
    data = json.loads(json.dumps(report.as_dict()))
    assert len(data["steps"]) == 2 and len(data["steps"][0]["losses"]) == 2
    assert data["steps"][1]["cosine_after"][2] is None
    assert report.steps[0].learning_rate == pytest.approx(0.1 * 22 / 25)
    assert "steps 3 to 4 (2)" in report.summary()
    picture = plot_report(report, width=600, height=300)
    assert picture.shape == (300, 600, 3) and picture.dtype == np.uint8
    assert not np.array_equal(plot_report(report), empty)


def test_the_hook_fits_the_sampler_of_the_core():
    from stableanimator_core.sigmas import sample_euler

    refiner, target = refiner_for(iterations=1, end_step=1), noise(2, 4, 8, 8)
    sigmas = karras_sigmas(4)
    hook = refiner.hook(sigmas)
    latents = sample_euler(lambda latents, sigma, step: target, noise(2, 4, 8, 8, seed=9), sigmas, on_x0=hook)
    assert [entry.step for entry in refiner.report.steps] == [0, 1]
    assert torch.isfinite(latents).all()
