"""python -m stableanimator_core.training.small STAGE --out DIR: train one of the small networks.

The stage `store` renders the people; all others read them from DIR/store. Interrupted stages go on from their last
checkpoint when called again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .loop import Budget, Stage, train
from .store import FrameStore, StorePlan, build_store, open_store

STAGES = ("store", "vae", "image-encoder", "recogniser", "judge", "joints")
_MINUTES = {"vae": 20.0, "image-encoder": 6.0, "recogniser": 8.0, "judge": 8.0, "joints": 8.0}
_THREADS = {"vae": 2}


def make_stage(name: str, store: FrameStore, seed: int) -> Stage:
    """The stage of this name, with random weights from `seed`."""
    from .image_encoder import ImageEncoderStage
    from .joints import JointStage
    from .recogniser import RecogniserStage
    from .vae import VAEStage

    makers: dict[str, Callable[[], Stage]] = {
        "vae": lambda: VAEStage(store, seed),
        "image-encoder": lambda: ImageEncoderStage(store, seed),
        "recogniser": lambda: RecogniserStage(store, "recogniser", seed),
        "judge": lambda: RecogniserStage(store, "judge", seed),
        "joints": lambda: JointStage(store, seed),
    }
    return makers[name]()


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.stage == "store":
        _build(options)
        return
    torch.set_num_threads(options.threads or _THREADS.get(options.stage, 1))
    stage = make_stage(options.stage, open_store(options.store or options.out / "store"), options.seed)
    size = sum(parameter.numel() for parameter in stage.network.parameters())
    print(f"{stage.name}: {size:,} parameters, heads included", flush=True)
    minutes = options.minutes or (None if options.steps else _MINUTES[options.stage])
    budget = Budget(minutes, options.steps)
    train(stage, options.out, budget, seed=options.seed, report=lambda line: print(line, flush=True))
    for path in stage.export(options.out, getattr(torch, options.dtype)):
        print(f"{path} ({path.stat().st_size:,} bytes)", flush=True)


def _build(options: argparse.Namespace) -> None:
    plan = StorePlan(
        options.persons, options.held_out, options.clips, options.frames, options.size, options.seed
    )
    begin = time.monotonic()

    def show(done: int, number: int) -> None:
        if done % max(1, number // 20) == 0 or done == number:
            print(f"store: {done} of {number} clips, {time.monotonic() - begin:.0f} s", flush=True)

    build_store(options.store or options.out / "store", plan, workers=options.threads or 2, on_clip=show)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stableanimator_core.training.small", description="Train one of the small networks."
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, logs and checkpoints")
    parser.add_argument("--store", type=Path, help="folder of the frame store; default DIR/store")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads, or processes that render")
    training = parser.add_argument_group("training")
    training.add_argument("--minutes", type=float, help="wall-clock time to train for")
    training.add_argument("--steps", type=int, help="steps to train for: repeatable, unlike minutes")
    training.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the files")
    plan = StorePlan()
    store = parser.add_argument_group("store")
    store.add_argument("--persons", type=int, default=plan.persons, help="people to train on")
    store.add_argument("--held-out", type=int, default=plan.held_out, help="people to evaluate on")
    store.add_argument("--clips", type=int, default=plan.clips, help="clips of each person")
    store.add_argument("--frames", type=int, default=plan.num_frames, help="frames of a clip")
    store.add_argument("--size", type=int, default=plan.size, help="side of a frame in pixels")
    return parser


if __name__ == "__main__":
    main()
