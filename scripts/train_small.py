#!/usr/bin/env python3
"""Trains the small demo model anew, from nothing but code: the weights in weights/small.

    python3 scripts/train_small.py --out DIR                 all stages; hours on two CPU cores
    python3 scripts/train_small.py --out DIR --stages vae    only some, from what DIR already holds
    python3 scripts/train_small.py --out DIR --scale 0.01    a hundredth of the steps, to try the way

A stage that was interrupted goes on from its last checkpoint when called again. The seeds are fixed, so the same
machine and the same library versions give the same weights.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import env

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs" / "small"
LAST = REPOSITORY / "weights" / "small"

SMALL = "stableanimator_core.training.small"
PUPPETS = ("-m", "stableanimator_core.puppets")
TRAINER = ("-m", "stableanimator_core.training")
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
STEPS = {"vae": 10318, "recogniser": 168, "image-encoder": 627, "judge": 441, "joints": 1930}
"""Steps of the shipped weights, as their logs say."""
RUNS = ("1-appearance", "2-pose", "3-identity", "4-longer", "anyone-1", "anyone-2", "anyone-3", "anyone-4")
"""Runs of the trainer, each with a file of its name in configs/small, which writes into run-NAME."""
PERSONS, CLIPS, FRAMES = 1500, 1500, 18
VALIDATION_FIRST = 900_000
STAGES = ("store", *STEPS, "set", *RUNS)


def commands(folder: Path, stage: str, scale: float) -> list[tuple[str, ...]]:
    """What a stage runs, as arguments of Python."""
    small, data = folder / "small", folder / "set"
    if stage in STEPS:
        steps = max(2, round(STEPS[stage] * scale))
        return [
            ("-m", SMALL, stage, "--out", str(small), "--store", str(folder / "store"), "--steps", str(steps))
        ]
    if stage == "store":
        persons = max(8, round(PERSONS * scale))
        held_out = str(max(2, persons // 10))
        store = ("--store", str(folder / "store"), "--persons", str(persons), "--held-out", held_out)
        return [("-m", SMALL, "store", "--out", str(small), *store)]
    if stage == "set":
        persons, clips = (max(4, round(number * scale)) for number in (PERSONS, CLIPS))
        training = ("--persons", str(persons), "--clips", str(clips), "--frames", str(FRAMES))
        validation = ("--persons", "6", "--frames", str(FRAMES), "--first", str(VALIDATION_FIRST))
        return [(*PUPPETS, str(data), *training), (*PUPPETS, str(data), *validation, "--name", "val")]
    return [*before(folder, stage), training_run(folder, stage, scale)]


def before(folder: Path, run: str) -> list[tuple[str, ...]]:
    """What makes the files that a run starts from."""
    poses = ("-m", f"{SMALL}.pose_start", str(folder / "set"))
    starts = {
        "2-pose": [(*poses, str(folder / "pose_start.safetensors"), "--width", "64")],
        "3-identity": [
            (
                "-m",
                f"{SMALL}.face_start",
                str(folder / "cache"),
                str(folder / "face_start.safetensors"),
                "--width",
                "64",
            )
        ],
        "anyone-1": [
            (
                *poses,
                str(folder / "guider_start.safetensors"),
                "--width",
                "48",
                "--guider",
                "8",
                "16",
                "24",
                "48",
            )
        ],
    }
    return [] if last_checkpoint(folder, run) else starts.get(run, [])


def training_run(folder: Path, run: str, scale: float) -> tuple[str, ...]:
    """The trainer with a copy of the run's settings beside the data: its steps scaled, its start found."""
    text = (CONFIGS / f"{run}.toml").read_text(encoding="utf-8")
    for name in ("steps", "schedule_steps", "warmup_steps", "every"):
        text = re.sub(rf"(?m)^{name} = (\d+)", lambda found, n=name: f"{n} = {scaled(found[1], scale)}", text)
    text = re.sub(r"run-([\w-]+)/checkpoint-\d+", lambda found: str(last_checkpoint(folder, found[1])), text)
    config = folder / f"{run}.toml"
    config.write_text(text, encoding="utf-8")
    resume = ("--resume",) if last_checkpoint(folder, run) else ()
    return (*TWO_PROCESSES, *TRAINER, str(config), *resume)


def scaled(steps: str, scale: float) -> int:
    return max(1, round(int(steps) * scale))


def last_checkpoint(folder: Path, run: str) -> Path | None:
    """The newest checkpoint of a run, or None."""
    found = list((folder / f"run-{run}").glob("checkpoint-*"))
    return max(found, key=lambda path: path.name) if found else None


def collect(folder: Path) -> None:
    """The finished files and logs into weights/small."""
    small, halve = folder / "small", ("-m", f"{SMALL}.halve")
    run_python(*halve, str(last_checkpoint(folder, "4-longer")), str(LAST))
    run_python(*halve, str(last_checkpoint(folder, "anyone-4")), str(LAST / "animate_anyone"))
    shutil.copytree(small / "SVD", LAST / "SVD", dirs_exist_ok=True)
    for name in ("face_recognizer", "judge", "joints"):
        shutil.copy(small / f"{name}.safetensors", LAST)
    logs = LAST / "logs"
    logs.mkdir(exist_ok=True)
    for log in (small / "logs").glob("*.csv"):
        shutil.copy(log, logs)
    for run in RUNS:
        shutil.copy(folder / f"run-{run}" / "metrics.jsonl", logs / f"{run}.jsonl")


def run_python(*arguments: str) -> None:
    """Python of the project's environment with the core importable; its failure ends this script."""
    environment = env.find()
    environment.ensure()
    importable = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run([str(environment.python), *arguments], env=importable, cwd=Path.home())
    if result.returncode:
        sys.exit(result.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="working folder: data, checkpoints, logs (about 2 GB)"
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps and of the data")
    parser.add_argument("--collect", action="store_true", help="then put the result into weights/small")
    options = parser.parse_args()
    folder = options.out.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for stage in options.stages:
        for command in commands(folder, stage, options.scale):
            env.say(f"{stage}: python {' '.join(command)}")
            run_python(*command)
    if options.collect:
        collect(folder)


if __name__ == "__main__":
    main()
