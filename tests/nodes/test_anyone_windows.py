"""Looped Windows: clips shorter than, equal to and longer than a window, closed and open, never over the table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyone import MAX_FRAMES, clip, custom, ksample, largest, noise_of, sockets, system
from test_anyone_model import from_core
from watching import forward_sizes, skeletons_seen

WINDOW, OVERLAP = 6, 2


@pytest.fixture(scope="module")
def core_system(pack):
    return system(pack)


@pytest.fixture(scope="module")
def models(pack, core_system) -> SimpleNamespace:
    return sockets(pack, core_system)


def windowed(pack, models, loop: str = "closed", size: int = WINDOW, overlap: int = OVERLAP):
    return pack.LoopedWindows.execute(models.model, size, overlap, loop).args[0]


@pytest.mark.parametrize("loop", ["closed", "open"])
@pytest.mark.parametrize(("frames", "windows"), [(1, 1), (3, 1), (6, 1), (7, 2), (14, None)])
def test_any_length_gives_what_the_core_gives_and_the_network_sees_one_window_at_a_time(
    loop, frames, windows, pack, core_comfy, core_system, models, monkeypatch
):
    windows = windows or {"closed": 4, "open": 3}[loop]
    expected = from_core(pack, core_system, frames, 2, window_size=WINDOW, overlap=OVERLAP, loop=loop)
    made = clip(pack, models, frames)
    sizes = forward_sizes(models, monkeypatch)
    result = custom(pack, windowed(pack, models, loop), made, noise_of(frames), 2, 3.5)
    assert largest(result - expected, expected) < 2e-4
    assert sizes == [2 * min(frames, WINDOW)] * windows * 2


@pytest.mark.parametrize("frames", [3, 6])
def test_a_clip_that_fits_gives_the_plain_run_bit_for_bit(frames, pack, core_comfy, models):
    made = clip(pack, models, frames)
    plain = ksample(core_comfy, models.model, made)
    assert torch.equal(ksample(core_comfy, windowed(pack, models), made), plain)


def test_closed_and_open_differ_in_a_long_clip(pack, core_comfy, models):
    made = clip(pack, models, 9)
    closed, opened = (ksample(core_comfy, windowed(pack, models, loop), made) for loop in ("closed", "open"))
    assert largest(closed - opened, closed) > 1e-2


def test_each_window_sees_its_own_skeletons_over_the_end_too(pack, core_comfy, models, monkeypatch):
    made = clip(pack, models, 9)
    features = made.positive[0][1]["stableanimator_pose"].features
    seen = skeletons_seen(models, monkeypatch)
    ksample(core_comfy, windowed(pack, models), made, steps=1)
    expected = [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 0], [8, 0, 1, 2, 3, 4]]
    assert len(seen) == len(expected)
    for rows, frames in zip(seen, expected, strict=True):
        assert all(torch.equal(half, features[frames]) for half in rows.unflatten(0, (2, WINDOW)))


def test_the_longest_window_is_that_of_the_position_tables(pack, core_comfy, models):
    made = clip(pack, models, 12)
    assert ksample(core_comfy, windowed(pack, models, size=MAX_FRAMES), made, steps=1).isfinite().all()
    with pytest.raises(ValueError, match="is 9 frames, the motion modules know 8 positions"):
        windowed(pack, models, size=MAX_FRAMES + 1)


def test_published_tables_take_32_frames_and_the_official_windows(pack):
    model = sockets(pack, system(pack, max_frames=32)).model
    for size in (24, 32):
        pack.LoopedWindows.execute(model, size, 4, "closed")
    with pytest.raises(ValueError, match="Use 32 or fewer"):
        pack.LoopedWindows.execute(model, 33, 4, "closed")


@pytest.mark.parametrize(("size", "overlap"), [(6, 6), (6, 7), (1, 0)])
def test_windows_that_cannot_cover_a_clip_are_refused_before_the_run_and_in_it(size, overlap, pack, models):
    words = pack.LoopedWindows.validate_inputs(window_size=size, overlap=overlap)
    assert words.startswith("Looped Windows (Animate Anyone) - ")
    with pytest.raises(ValueError, match="Looped Windows"):
        windowed(pack, models, size=size, overlap=overlap)


def test_memory_is_estimated_for_one_window_not_for_the_clip(pack, core_comfy, models, monkeypatch):
    asked = []
    estimate = models.model.model.memory_required

    def asking(input_shape, **options):
        asked.append(input_shape[0])
        return estimate(input_shape, **options)

    monkeypatch.setattr(models.model.model, "memory_required", asking)
    ksample(core_comfy, windowed(pack, models), clip(pack, models, 14), steps=1)
    assert asked and max(asked) <= 2 * WINDOW


def test_cancel_is_heard_between_two_windows(pack, core_comfy, models, monkeypatch):
    import comfy.model_management as mm

    made = clip(pack, models, 14)
    calls = []
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def cancelling(x, *args, **options):
        calls.append(len(x))
        mm.interrupt_current_processing()
        return forward(x, *args, **options)

    monkeypatch.setattr(unet, "_forward", cancelling)
    with pytest.raises(mm.InterruptProcessingException):
        ksample(core_comfy, windowed(pack, models), made)
    assert len(calls) == 1


def test_a_stableanimator_model_is_sent_to_its_own_windows(pack, core_comfy, models):
    stable = pack.LoadAnimatorModels.execute(*[pack.module("nodes.small").ENTRY] * 4, "default").args[0]
    with pytest.raises(ValueError, match="is a StableAnimatorModel, not an Animate Anyone model"):
        pack.LoopedWindows.execute(stable, WINDOW, OVERLAP, "closed")
    with pytest.raises(ValueError, match="is a AnyoneModel, not a StableAnimator model"):
        pack.AnimationWindows.execute(models.model, WINDOW, OVERLAP)


def test_the_patched_model_leaves_the_given_one_as_it_was(pack, models):
    windowed(pack, models)
    assert "context_handler" not in models.model.model_options
