"""Animation Windows under KSampler: any length, bounded memory, the plain run where a clip fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_model import make_clip, sample
from watching import forward_sizes, skeletons_seen

WINDOW, OVERLAP = 16, 4


@pytest.fixture
def sizes(models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the network was given in each call, both guidance halves together."""
    return forward_sizes(models, monkeypatch)


def windowed(pack, model, size: int = WINDOW, overlap: int = OVERLAP):
    return pack.AnimationWindows.execute(model, size, overlap).args[0]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 16, 17, 40, 300])
def test_any_length_works_and_the_network_never_sees_more_than_a_window(
    num_frames, core_comfy, pack, models, sizes
):
    clip = make_clip(pack, models, num_frames)
    result = sample(core_comfy, windowed(pack, models.model), clip, steps=1)
    assert result.shape == (num_frames, 4, 8, 8)
    assert result.isfinite().all()
    assert max(sizes) == 2 * min(num_frames, WINDOW)
    assert len(sizes) == (1 if num_frames <= WINDOW else -(-(num_frames - WINDOW) // (WINDOW - OVERLAP)) + 1)


@pytest.mark.parametrize("num_frames", [1, 5, 16])
def test_a_clip_that_fits_gives_the_plain_run_bit_for_bit(num_frames, core_comfy, pack, models):
    clip = make_clip(pack, models, num_frames)
    plain = sample(core_comfy, models.model, clip)
    assert torch.equal(sample(core_comfy, windowed(pack, models.model), clip), plain)


def test_windows_of_a_long_clip_are_not_the_plain_run(core_comfy, pack, models):
    """Else the tests above would pass without any window."""
    clip = make_clip(pack, models, 9)
    plain = sample(core_comfy, models.model, clip)
    assert not torch.allclose(sample(core_comfy, windowed(pack, models.model, 4, 2), clip), plain, rtol=1e-3)


def test_each_window_sees_its_own_skeletons(core_comfy, pack, models, monkeypatch):
    clip = make_clip(pack, models, 9)
    features = clip.positive[0][1]["stableanimator_pose"].features
    seen = skeletons_seen(models, monkeypatch)
    sample(core_comfy, windowed(pack, models.model, 4, 2), clip, steps=1)
    windows = [[0, 1, 2, 3], [0, 3, 4, 5], [0, 5, 6, 7], [0, 6, 7, 8]]
    assert len(seen) == len(windows)
    for rows, window in zip(seen, windows, strict=True):
        halves = sorted(rows.unflatten(0, (2, 4)), key=lambda half: bool(half.any()))
        assert not halves[0].any(), "the unconditional half has no pose"
        assert torch.equal(halves[1], features[window])


def test_memory_is_estimated_for_one_window_not_for_the_clip(core_comfy, pack, models, monkeypatch):
    asked = []
    estimate = models.model.model.memory_required

    def recording(input_shape, *args, **options):
        asked.append(input_shape[0])
        return estimate(input_shape, *args, **options)

    monkeypatch.setattr(models.model.model, "memory_required", recording)
    sample(core_comfy, windowed(pack, models.model), make_clip(pack, models, 40), steps=1)
    assert asked
    assert max(asked) <= 2 * WINDOW


def noise_given_to(monkeypatch, core_comfy, model, clip) -> torch.Tensor:
    import comfy.sample

    drawn = []
    prepare = comfy.sample.prepare_noise
    monkeypatch.setattr(
        comfy.sample, "prepare_noise", lambda *args: drawn.append(prepare(*args)) or drawn[-1]
    )
    sample(core_comfy, model, clip, steps=1)
    return drawn[0]


def test_noise_repeats_after_a_window_as_in_the_official_code(core_comfy, pack, models, monkeypatch):
    clip = make_clip(pack, models, 40)  # noise_window 16
    noise = noise_given_to(monkeypatch, core_comfy, windowed(pack, models.model), clip)
    assert torch.equal(noise[16:32], noise[:16])
    assert torch.equal(noise[32:], noise[:8])
    assert len({float(frame.sum()) for frame in noise[:16]}) == 16


def test_noise_window_0_gives_every_frame_its_own_noise(core_comfy, pack, models, monkeypatch):
    clip = make_clip(pack, models, 40)
    repeated = sample(core_comfy, windowed(pack, models.model), clip, steps=1)
    clip.latent = {"samples": clip.latent["samples"]}  # as ArcFace + CLIP Encode makes it with noise_window 0
    noise = noise_given_to(monkeypatch, core_comfy, windowed(pack, models.model), clip)
    assert len({float(frame.sum()) for frame in noise}) == 40
    assert not torch.equal(sample(core_comfy, windowed(pack, models.model), clip, steps=1), repeated)


def test_id_adapter_and_windows_work_in_either_order(core_comfy, pack, models):
    clip = make_clip(pack, models, 9)
    adapted = pack.IDAdapterUNet.execute(models.model, 0.5, "mean", 0.0, 1.0).args[0]
    first = windowed(pack, adapted, 4, 2)
    second = pack.IDAdapterUNet.execute(windowed(pack, models.model, 4, 2), 0.5, "mean", 0.0, 1.0).args[0]
    result = sample(core_comfy, first, clip)
    assert torch.equal(result, sample(core_comfy, second, clip))
    assert not torch.equal(result, sample(core_comfy, windowed(pack, models.model, 4, 2), clip))


def test_the_node_changes_a_copy_only(core_comfy, pack, models, sizes):
    windowed(pack, models.model, 2, 1)
    sample(core_comfy, models.model, make_clip(pack, models, 5), steps=1)
    assert sizes == [10]


@pytest.fixture
def core_windows(core_comfy, monkeypatch: pytest.MonkeyPatch):
    """Core's own node. ComfyUI 0.3.75 looks for its step with one noise level a frame, which fails for any batch
    of more than one; later versions look with the first, which is done here too.
    """
    import comfy.context_windows
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    handler = comfy.context_windows.IndexListContextHandler
    set_step = handler.set_step
    monkeypatch.setattr(handler, "set_step", lambda self, t, options: set_step(self, t[:1], options))

    def execute(model, size: int, overlap: int, schedule: str):
        return ContextWindowsManualNode.execute(model, size, overlap, schedule, 1, False, "pyramid", 0)[0]

    return execute


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
def test_cores_own_context_windows_work_too(schedule, core_comfy, core_windows, pack, models, sizes):
    clip = make_clip(pack, models, 9)
    model = core_windows(models.model, 4, 2, schedule)
    assert sample(core_comfy, model, clip).isfinite().all()
    assert max(sizes) == 8


def test_cores_own_context_windows_slice_the_skeletons(core_comfy, core_windows, pack, models, monkeypatch):
    clip = make_clip(pack, models, 6)
    features = clip.positive[0][1]["stableanimator_pose"].features
    seen = skeletons_seen(models, monkeypatch)
    model = core_windows(models.model, 3, 0, "batched")
    sample(core_comfy, model, clip, steps=1)
    given = [half for rows in seen for half in rows.unflatten(0, (2, 3)) if half.any()]
    assert len(given) == 2
    assert torch.equal(given[0], features[:3])
    assert torch.equal(given[1], features[3:])


@pytest.mark.parametrize(
    ("size", "overlap", "what"), [(1, 0, "window_size"), (16, 0, "overlap"), (16, 16, "overlap")]
)
def test_impossible_windows_are_refused_by_name_when_the_workflow_is_queued_and_when_it_runs(
    size, overlap, what, pack, models
):
    verdict = pack.AnimationWindows.validate_inputs(size, overlap)
    assert isinstance(verdict, str)
    assert verdict.startswith(f"Animation Windows - {what}: ")
    with pytest.raises(ValueError, match=f"Animation Windows - {what}"):
        windowed(pack, models.model, size, overlap)


def test_values_from_other_nodes_are_left_to_the_run(pack):
    assert pack.AnimationWindows.validate_inputs(None, 0) is True
    assert pack.AnimationWindows.validate_inputs(16, 4) is True


@pytest.mark.parametrize("node", ["AnimationWindows", "IDAdapterUNet"])
def test_a_model_of_another_family_is_refused(node, pack, core_comfy):
    import comfy.model_base
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    config = comfy.supported_models.SD15({"disable_unet_model_creation": True})
    other = ModelPatcher(comfy.model_base.BaseModel(config), torch.device("cpu"), torch.device("cpu"))
    values = {"AnimationWindows": (16, 4), "IDAdapterUNet": (1.0, "full", 0.0, 1.0)}[node]
    with pytest.raises(
        ValueError, match="model: is a BaseModel, not a StableAnimator model. Connect Load Animator Models"
    ):
        getattr(pack, node).execute(other, *values)
