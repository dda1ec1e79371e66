"""The script that trains the small demo model anew: what it would run, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
import train_small as subject

from stableanimator_core.training.config import read_settings


def test_every_stage_runs_something_into_the_folder(tmp_path: Path):
    for stage in subject.STAGES:
        for command in subject.commands(tmp_path, stage, 0.01):
            assert command[0] == "-m" and str(tmp_path) in " ".join(command), stage


@pytest.mark.parametrize("run", subject.RUNS)
def test_the_runs_settings_are_valid_and_their_steps_scaled(run: str, tmp_path: Path):
    whole = read_settings(subject.CONFIGS / f"{run}.toml")
    subject.commands(tmp_path, run, 0.1)
    scaled = read_settings(tmp_path / f"{run}.toml")
    assert scaled.training.steps == round(whole.training.steps * 0.1)
    assert scaled.output == tmp_path / f"run-{run}"


def test_a_run_starts_from_the_last_checkpoint_of_the_one_before_and_goes_on_from_its_own(tmp_path: Path):
    for name in ("checkpoint-000007", "checkpoint-000015"):
        (tmp_path / "run-1-appearance" / name).mkdir(parents=True)
    *before, first = subject.commands(tmp_path, "2-pose", 0.01)
    assert "pose_start" in before[0][1] and "--resume" not in first
    wanted = tmp_path / "run-1-appearance" / "checkpoint-000015" / "unet.safetensors"
    assert read_settings(tmp_path / "2-pose.toml").networks.unet == wanted
    (tmp_path / "run-2-pose" / "checkpoint-000003").mkdir(parents=True)
    (again,) = subject.commands(tmp_path, "2-pose", 0.01)
    assert again[-1] == "--resume"
