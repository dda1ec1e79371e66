"""How strongly and when face and skeleton lead: ID Adapter U-Net and Apply PoseNet under KSampler."""

from __future__ import annotations

import pytest
import torch
from encoded import adapted, encode, face_of, posed
from test_model import make_clip, sample


def test_at_strength_0_the_face_does_not_matter(core_comfy, pack, models):
    off = adapted(pack, models.model, 0.0, "full", 0.0, 1.0)
    faces = (face_of(pack, 1), face_of(pack, 2), None)
    clips = [posed(pack, models, encode(pack, models, face=face)) for face in faces]
    first, second, none = (sample(core_comfy, off, clip) for clip in clips)
    assert torch.equal(first, second)
    assert torch.equal(first, none)
    assert not torch.equal(first, sample(core_comfy, models.model, clips[0]))


def test_strength_1_is_what_the_model_does_without_the_node(core_comfy, pack, models):
    clip = make_clip(pack, models, 3)
    same = adapted(pack, models.model, 1.0, "full", 0.0, 1.0)
    assert torch.equal(sample(core_comfy, same, clip), sample(core_comfy, models.model, clip))


@pytest.mark.parametrize("alignment", ["mean", "none"])
def test_the_ablations_give_other_clips(alignment, core_comfy, pack, models):
    clip = make_clip(pack, models, 3)
    other = adapted(pack, models.model, 1.0, alignment, 0.0, 1.0)
    assert not torch.equal(sample(core_comfy, other, clip), sample(core_comfy, models.model, clip))


def test_pose_strength_0_is_no_pose(core_comfy, pack, models):
    bare = encode(pack, models)
    none = sample(core_comfy, models.model, bare)
    assert torch.equal(sample(core_comfy, models.model, posed(pack, models, bare, 0.0, 0.0, 1.0)), none)
    assert not torch.equal(sample(core_comfy, models.model, posed(pack, models, bare)), none)


def test_pose_strength_multiplies_the_features(pack, models):
    bare = encode(pack, models)
    one, two = (
        posed(pack, models, bare, s, 0.0, 1.0).positive[0][1]["stableanimator_pose"] for s in (1.0, 2.0)
    )
    torch.testing.assert_close(two.features, 2 * one.features)


RANGES = [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.3, 0.6), (1.0, 1.0)]


def acting_steps(core_comfy, model, start: float, end: float, steps: int) -> list[bool]:
    """Which of core's noise levels lie between the two percents, counted by core's own function."""
    import comfy.samplers

    sampling = model.get_model_object("model_sampling")
    first, last = (float(sampling.percent_to_sigma(percent)) for percent in (start, end))
    levels = comfy.samplers.calculate_sigmas(sampling, "karras", steps)[:-1].tolist()
    return [last <= level <= first for level in levels]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_the_skeleton_leads_only_between_its_percents(start, end, core_comfy, pack, models, monkeypatch):
    clip = posed(pack, models, encode(pack, models), 1.0, start, end)
    acted = []
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def looking(x, *args, pose_features, **options):
        acted.append(bool(pose_features.any()))
        return forward(x, *args, pose_features=pose_features, **options)

    monkeypatch.setattr(unet, "_forward", looking)
    sample(core_comfy, models.model, clip, steps=8)
    assert acted == acting_steps(core_comfy, models.model, start, end, 8)


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_the_face_leads_only_between_its_percents(start, end, core_comfy, pack, models, monkeypatch):
    strengths = []
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def looking(x, *args, adapter, **options):
        strengths.append(adapter.strength)
        return forward(x, *args, adapter=adapter, **options)

    monkeypatch.setattr(unet, "_forward", looking)
    model = adapted(pack, models.model, 0.7, "full", start, end)
    sample(core_comfy, model, make_clip(pack, models, 2), steps=8)
    assert strengths == [0.7 if acts else 0.0 for acts in acting_steps(core_comfy, model, start, end, 8)]


def test_the_ranges_above_really_split_the_sampling(core_comfy, models):
    for start, end in RANGES[1:4]:
        assert len(set(acting_steps(core_comfy, models.model, start, end, 8))) == 2
