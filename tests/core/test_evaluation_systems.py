"""The versions of the model: each differs in one thing, and all see the same clips and noise."""

from __future__ import annotations

import pytest
import torch
from evaluation_models import SIZE, Planted, made_up_clip, write_weights

from stableanimator_core.errors import InputError
from stableanimator_core.evaluation import systems as systems_module
from stableanimator_core.evaluation.networks import Networks
from stableanimator_core.evaluation.running import run
from stableanimator_core.evaluation.stored import Stored
from stableanimator_core.evaluation.systems import Settings, available_systems, build_systems
from stableanimator_core.hjb.options import HJBOptions
from stableanimator_core.models.unet import AdapterOptions
from stableanimator_core.pipeline import AnimationOptions

QUICK = Settings(AnimationOptions(num_steps=2), HJBOptions(iterations=1))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return Networks.load(write_weights(tmp_path_factory.mktemp("weights")))


def test_variants_differ_from_full_in_one_thing_and_share_the_noise(networks):
    names = available_systems(networks.folder)
    built = {system.name: system for system in build_systems(names, networks, QUICK)}
    full = built["full"].options
    assert built["no_adapter"].options.adapter == AdapterOptions(strength=0)
    assert built["no_alignment"].options.adapter == AdapterOptions(alignment="none")
    assert not built["no_fusion"].options.fuse_face and full.fuse_face
    assert built["hjb_exact"].options == built["hjb_fast"].options == full
    assert (built["hjb_exact"].hjb.mode, built["hjb_fast"].hjb.mode) == ("exact", "fast")
    clip = made_up_clip()
    frames = {name: built[name].animate(clip.inputs) for name in ("full", "no_adapter", "hjb_exact")}
    assert (frames["full"] == built["full"].animate(clip.inputs)).all()
    assert (frames["full"] != frames["no_adapter"]).any() and (frames["full"] != frames["hjb_exact"]).any()
    assert len({system.fingerprint for system in built.values()}) == len(built)


def test_another_persons_face_is_used_in_the_same_clip(networks, monkeypatch):
    asked = []

    def identity_of(network, picture, box):
        asked.append((picture, box))
        return torch.ones(512)

    clip, stranger = made_up_clip(3), made_up_clip(9)
    seeds = []

    def strangers(count, num_frames, size, *, first):
        seeds.append((first, size))
        return iter([stranger])

    monkeypatch.setattr(systems_module, "identity_of", identity_of)
    monkeypatch.setattr(systems_module, "evaluation_clips", strangers)
    full, other = build_systems(["full", "other_face"], networks, QUICK)
    frames = [system.animate(clip.inputs) for system in (full, other)]
    assert (frames[0] == frames[1]).all()  # the faked embedding is the only difference
    assert asked[0][0] is clip.inputs.reference and asked[1][0] is stranger.inputs.reference
    assert asked[1][1] == stranger.inputs.reference_box
    assert seeds == [(3 + systems_module.STRANGERS, SIZE)]
    assert full.fingerprint != other.fingerprint


def test_another_system_joins_with_the_same_clips_and_judges(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(systems_module, "_SYSTEMS", dict(systems_module._SYSTEMS))
    clips = [made_up_clip()]
    systems_module.system("another", "another model")(lambda networks, settings: Planted("another", clips, 1))
    systems = build_systems(["reference", "another"], networks, QUICK)
    stored = Stored(tmp_path, {}, "j")
    stored.open(resume=False)
    results = run(clips, systems, networks, stored)
    assert results["another"]["0"]["psnr"] > results["reference"]["0"]["psnr"]
    with pytest.raises(InputError, match="nobody is not known"):
        build_systems(["nobody"], networks, QUICK)
