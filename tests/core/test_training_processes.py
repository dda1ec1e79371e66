"""Two processes under `accelerate launch`, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_data

from stableanimator_core.training.checkpoints import PARTS, checkpoints_in
from stableanimator_core.training.trainer import train

LAUNCH = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
"""Without `--multi_gpu` accelerate starts one process where there is no GPU."""


def test_two_processes_learn_what_one_learns_from_twice_the_clips(
    configured, training_root, training_weights, training_cache, tmp_path
):
    """A large eps keeps rounding from being blown up by Adam."""
    run = {
        "data": {"cache": str(training_cache)},
        "optimizer": {"learning_rate": 1e-2, "eps": 1e-2, "max_grad_norm": 1.0},
    }
    steps = {"steps": 2, "gradient_accumulation": 2}
    one_settings = configured("one", **{**run, "training": {**steps, "batch_size": 2}})
    one = train(one_settings)
    tables = training_data.tables(
        training_root, training_weights, tmp_path / "two", **run, training={**steps, "batch_size": 1}
    )
    (tmp_path / "two.toml").write_text(training_data.as_toml(tables))
    script = Path(__file__).with_name("two_processes.py")
    answer = subprocess.run(
        [sys.executable, *LAUNCH, str(script), str(tmp_path / "two.toml")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=1500,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    (two,) = checkpoints_in(tmp_path / "two")
    assert (two / "state" / "random_states_1.pkl").is_file()
    first, second = (training_data.loaded(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert_learnt_alike(training_data.start_of(one_settings), one.checkpoint, two)
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one.checkpoint.parent, two.parent)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def assert_learnt_alike(start, one, two):
    """The same weights but for rounding, and far from where both began."""
    for part in PARTS:
        ours, theirs = training_data.state_of(one, part), training_data.state_of(two, part)
        for key, tensor in ours.items():
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-4, atol=2e-6, msg=key)
        moved = [float((ours[key] - start[f"{part}.{key}"]).abs().max()) for key in ours]
        assert max(moved) > 1e-3, part
