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
CONFIG = REPOSITORY / "configs" / "small.toml"
LAST = REPOSITORY / "weights" / "small"

SMALL = ("-m", "stableanimator_core.training.small")
PUPPETS = ("-m", "stableanimator_core.puppets")
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
STEPS = {"vae": 10318, "recogniser": 168, "image-encoder": 627, "judge": 441, "joints": 1930}
"""Steps of the shipped weights, as their logs say."""
PERSONS, CLIPS, FRAMES = 1500, 1500, 18
VALIDATION_FIRST = 900_000
STAGES = ("store", *STEPS, "set", "train")


def commands(folder: Path, stage: str, scale: float) -> list[tuple[str, ...]]:
    """What a stage runs, as arguments of Python."""
    small, data = folder / "small", folder / "set"
    if stage in STEPS:
        steps = max(2, round(STEPS[stage] * scale))
        return [(*SMALL, stage, "--out", str(small), "--store", str(folder / "store"), "--steps", str(steps))]
    if stage == "store":
        persons = max(8, round(PERSONS * scale))
        held_out = str(max(2, persons // 10))
        store = ("--store", str(folder / "store"), "--persons", str(persons), "--held-out", held_out)
        return [(*SMALL, "store", "--out", str(small), *store)]
    if stage == "set":
        persons, clips = (max(4, round(number * scale)) for number in (PERSONS, CLIPS))
        training = ("--persons", str(persons), "--clips", str(clips), "--frames", str(FRAMES))
        validation = ("--persons", "6", "--frames", str(FRAMES), "--first", str(VALIDATION_FIRST))
        return [(*PUPPETS, str(data), *training), (*PUPPETS, str(data), *validation, "--name", "val")]
    config = configured(folder, scale)
    return [(*TWO_PROCESSES, "-m", "stableanimator_core.training", str(config), *resume(folder))]


def configured(folder: Path, scale: float) -> Path:
    """The trainer's settings beside the data, its steps scaled."""
    text = CONFIG.read_text(encoding="utf-8")
    for name in ("steps", "warmup_steps", "every"):
        text = re.sub(
            rf"(?m)^{name} = (\d+)",
            lambda found, n=name: f"{n} = {max(1, round(int(found[1]) * scale))}",
            text,
        )
    config = folder / CONFIG.name
    config.write_text(text, encoding="utf-8")
    return config


def resume(folder: Path) -> tuple[str, ...]:
    return ("--resume",) if list((folder / "run").glob("checkpoint-*")) else ()


def collect(folder: Path) -> None:
    """The finished files and logs into weights/small."""
    small, run = folder / "small", folder / "run"
    checkpoint = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    run_python("-m", "stableanimator_core.training.small.halve", str(checkpoint), str(LAST))
    shutil.copytree(small / "SVD", LAST / "SVD", dirs_exist_ok=True)
    for name in ("face_recognizer", "judge", "joints"):
        shutil.copy(small / f"{name}.safetensors", LAST)
    (LAST / "logs").mkdir(exist_ok=True)
    for log in [*(small / "logs").glob("*.csv"), run / "metrics.jsonl"]:
        shutil.copy(log, LAST / "logs")


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
