"""Animate Anyone beside StableAnimator: the same clips and judges, left out where its files are missing."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from evaluation_models import made_up_clip, write_anyone, write_weights

from stableanimator_core.animate_anyone.pipeline import AnyoneOptions
from stableanimator_core.errors import WeightsError
from stableanimator_core.evaluation.__main__ import main
from stableanimator_core.evaluation.networks import Networks
from stableanimator_core.evaluation.systems import Settings, available_systems, build_systems, known_systems

QUICK = Settings(anyone=AnyoneOptions(num_steps=2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = write_weights(tmp_path_factory.mktemp("weights"))
    write_anyone(folder)
    return folder


@pytest.fixture(scope="module")
def networks(weights):
    return Networks.load(weights)


def animate_anyone(networks, settings=QUICK):
    return build_systems(["animate_anyone"], networks, settings)[0]


def test_it_animates_the_clip_and_repeats_itself(networks):
    system, inputs = animate_anyone(networks), made_up_clip().inputs
    frames = system.animate(inputs)
    assert frames.shape == inputs.poses.shape and frames.std() > 0
    assert (frames == animate_anyone(networks).animate(inputs)).all()


def test_photo_poses_and_seed_all_matter(networks):
    system, inputs = animate_anyone(networks), made_up_clip().inputs
    frames = system.animate(inputs)
    changes = {"reference": inputs.reference[::-1].copy(), "poses": 255 - inputs.poses, "seed": 5}
    for name, value in changes.items():
        assert (system.animate(replace(inputs, **{name: value})) != frames).any(), name


def test_other_files_or_settings_have_another_fingerprint(networks, weights, tmp_path):
    system = animate_anyone(networks)
    assert system.fingerprint == animate_anyone(networks).fingerprint
    assert (
        system.fingerprint
        != animate_anyone(networks, Settings(anyone=AnyoneOptions(num_steps=3))).fingerprint
    )
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    path = folder / "animate_anyone" / "pose_guider.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert animate_anyone(replace(networks, folder=folder)).fingerprint != system.fingerprint


def test_without_its_files_it_is_left_out_unless_it_is_asked_for(networks, weights, tmp_path):
    assert available_systems(weights) == list(known_systems())
    assert set(known_systems()) - set(available_systems(tmp_path)) == {"animate_anyone"}
    with pytest.raises(WeightsError, match="Leave out the variant animate_anyone"):
        animate_anyone(replace(networks, folder=tmp_path))


def test_its_row_stands_beside_the_others(weights, tmp_path):
    words = f"--weights {weights} --out {tmp_path} --clips 1 --frames 2 --size 64 --steps 1".split()
    assert main([*words, "--variants", "full", "animate_anyone"]) == 0
    means = (tmp_path / "table.md").read_text().split("## Paired")[0]
    assert "| `full` | 1 |" in means and "| `animate_anyone` | 1 |" in means
