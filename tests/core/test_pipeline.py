"""The façade: official clips in plain Python, bad input refused before a network runs, cancel, repeats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stableanimator_core.conformance.cases.pipeline import animator_of, options_of
from stableanimator_core.conformance.checks import differences
from stableanimator_core.conformance.golden import Golden, open_golden
from stableanimator_core.conformance.run import run_case
from stableanimator_core.decode import DecodeOptions
from stableanimator_core.errors import InputError
from stableanimator_core.models.unet import AdapterOptions
from stableanimator_core.pipeline import AnimationOptions, Animator, Draws

GOLDENS = Path(__file__).parents[1] / "goldens"
SMALL = AnimationOptions(num_steps=1, decode=DecodeOptions(chunk=2))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return open_golden(GOLDENS, "pipeline_a")


@pytest.fixture(scope="module")
def animator(golden: Golden) -> Animator:
    return animator_of(golden)


@pytest.fixture
def untouched(animator: Animator, monkeypatch: pytest.MonkeyPatch) -> list:
    """Calls of any network, which must stay empty where input is refused."""
    calls = []
    for name in ("unet", "pose_net", "face_encoder", "vae", "image_encoder"):
        network = getattr(animator, name)
        monkeypatch.setattr(network, "forward", lambda *args, name=name, **options: calls.append(name))
    return calls


def photo(height: int = 90, width: int = 70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def skeletons(frames: int, side: int = 64, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (frames, side, side, 3), dtype=np.uint8)


def identity(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(512).astype(np.float32)


def animate(animator: Animator, frames: int = 2, **changes):
    settings = {"height": 64, "width": 64, "options": SMALL, "identity": identity(), "image": photo()}
    settings = {**settings, "poses": skeletons(frames), **changes}
    return animator.animate(**settings)


def test_every_stage_is_the_official_one():
    rows = run_case(GOLDENS, "pipeline_c")
    assert len(rows) > 15
    assert [row for row in rows if not row.ok] == []


def test_one_call_gives_the_official_frames(golden, animator):
    run = golden.sidecar["run"]
    draws = Draws(golden["image_noise"], golden["latent_noise"][0])
    result = animator.animate(
        golden["input_image"].numpy(),
        golden["pose_images"].numpy(),
        golden["id_embedding"],
        height=run["height"],
        width=run["width"],
        options=options_of(run),
        draws=draws,
    )
    difference = differences(torch.from_numpy(result.frames), golden.expected("frames_uint8")).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01


def test_a_seed_means_the_same_clip_and_another_seed_another(animator):
    first, second, other = (animate(animator, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.frames, second.frames)
    assert torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, other.latents)


def test_inputs_are_not_changed(animator):
    image, poses, face = photo(), skeletons(2), identity()
    copies = image.copy(), poses.copy(), face.copy()
    animate(animator, image=image, poses=poses, identity=face)
    for before, after in zip(copies, (image, poses, face), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("changed", ["image", "poses", "identity"])
def test_photo_motion_and_face_each_change_the_clip(animator, changed):
    other = {"image": photo() // 2, "poses": skeletons(2, seed=9), "identity": identity(9)}[changed]
    assert not torch.equal(animate(animator).latents, animate(animator, **{changed: other}).latents)


@pytest.mark.parametrize("frames", [1, 2, 5, 17])
def test_clips_of_any_length_come_out_with_one_frame_for_each_skeleton(animator, frames):
    result = animate(animator, frames, options=replace(SMALL, window_size=4, overlap=2))
    assert result.frames.shape == (frames, 64, 64, 3)
    assert result.frames.dtype == np.uint8
    assert result.latents.isfinite().all()


def test_without_a_face_a_clip_is_made_too(animator):
    assert animate(animator, identity=None).latents.isfinite().all()


def test_at_strength_zero_the_face_does_not_matter(animator):
    options = replace(SMALL, adapter=AdapterOptions(strength=0.0))
    faces = (identity(1), identity(2), None)
    first, second, none = (animate(animator, identity=face, options=options).latents for face in faces)
    assert torch.equal(first, second)
    assert torch.equal(first, none)
    assert not torch.equal(first, animate(animator, identity=identity(1)).latents)


def test_the_hook_sees_each_steps_clean_latents_and_may_replace_them(animator):
    seen = []

    def hook(step, x0):
        seen.append((step, tuple(x0.shape)))
        return torch.zeros_like(x0)

    result = animate(animator, on_x0=hook, options=replace(SMALL, num_steps=2))
    assert seen == [(0, (2, 4, 8, 8)), (1, (2, 4, 8, 8))]
    assert result.latents.abs().max() < 1e-3


def test_an_error_from_on_window_cancels(animator):
    class Cancelled(Exception):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        animate(animator, on_window=cancel)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 100}, "use 64 x 128"),
        ({"width": 0}, "use 64 x 64"),
        ({"poses": skeletons(0)}, "at least one skeleton"),
        ({"poses": np.zeros((2, 64, 128, 3), np.uint8)}, "stretched"),
        ({"options": replace(SMALL, num_steps=0)}, "num_steps"),
        ({"options": replace(SMALL, overlap=16), "poses": skeletons(17)}, "overlap"),
        ({"options": replace(SMALL, window_size=1), "poses": skeletons(17)}, "window_size"),
        ({"options": replace(SMALL, decode=DecodeOptions(chunk=2, overlap=2))}, "frame overlap"),
        ({"image": photo(1, 1)}, "1 x 1 pixels"),
        ({"image": photo()[..., :1]}, "image"),
        ({"image": photo() / 255}, "image"),
        ({"identity": np.zeros(511, np.float32)}, "identity"),
        ({"identity": np.full(512, np.nan, np.float32)}, "identity"),
        ({"draws": Draws.from_seed(0, 128, 64, 2)}, "draws"),
    ],
)
def test_what_cannot_work_is_refused_by_name_before_a_network_runs(animator, untouched, changes, words):
    with pytest.raises(InputError) as caught:
        animate(animator, **changes)
    assert words.lower() in str(caught.value).lower()
    assert not untouched
