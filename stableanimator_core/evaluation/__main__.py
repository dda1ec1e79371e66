"""python -m stableanimator_core.evaluation --weights DIR --out DIR: judge the small model on held-out people.

Each result is kept as soon as it is there; a run that was interrupted goes on with --resume.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from .. import small_model
from ..animate_anyone.pipeline import AnyoneOptions
from ..errors import InputError
from ..hjb.options import HJBOptions
from ..models.unet import AdapterOptions
from ..pipeline import AnimationOptions
from .clips import FIRST_TEST, FIRST_VALIDATION, evaluation_clips
from .networks import Networks
from .plots import contact_sheet, plot_differences, plot_means
from .running import BOUNDS, Progress, run
from .stored import Results, Stored
from .summary import OTHER_PERSON, summarise
from .sweep import parse_axes, sweep_markdown, sweep_systems
from .systems import Settings, System, available_systems, build_systems, known_systems
from .table import write_table

QUICK = {"clips": 4, "frames": 8, "steps": 8}
SHEET_CLIPS, SHEET_SYSTEMS = 6, ("full", "no_adapter", "hjb_exact", "hjb_fast", "animate_anyone")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        _sweep(options) if options.sweep else _evaluate(options)
    except InputError as error:
        parser.error(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stableanimator_core.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--weights", type=Path, default=small_model.folder(), help="folder of the small model's files")
    add("--out", type=Path, required=True, help="folder for results")
    add("--clips", type=int, default=25, help="how many clips, each of another person")
    add("--frames", type=int, default=8, help="judged frames of a clip")
    add("--size", type=int, default=128, help="side of the frames, a multiple of 64")
    add("--steps", type=int, default=20, help="denoising steps")
    add("--guidance", type=float, default=1.5, help="guidance scale")
    add("--anyone-guidance", type=float, default=2.0, help="of Animate Anyone")
    add("--strength", type=float, default=1.0, help="strength of the ID adapter")
    add(
        "--hjb-rate",
        type=float,
        default=HJBOptions.learning_rate,
        help="learning rate of the face optimisation",
    )
    add("--hjb-iterations", type=int, default=HJBOptions.iterations, help="its updates in each step")
    add(
        "--variants",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(known_systems())}; all whose files are there if left out",
    )
    add("--sweep", nargs="+", metavar="AXIS=VALUES", help="compare settings on validation people instead")
    add("--quick", action="store_true", help=f"a look: {QUICK}")
    add("--resume", action="store_true", help="go on with what is in the folder")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="of torch")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    animation = AnimationOptions(
        num_steps=options.steps,
        guidance=(options.guidance, options.guidance),
        adapter=AdapterOptions(strength=options.strength),
    )
    hjb = HJBOptions(learning_rate=options.hjb_rate, iterations=options.hjb_iterations)
    anyone = AnyoneOptions(num_steps=options.steps, guidance=options.anyone_guidance)
    return Settings(animation, hjb, anyone)


def _run(
    options: argparse.Namespace, systems: list[System], networks: Networks, first: int
) -> tuple[Results, Stored]:
    plan = {"first_seed": first, "frames": options.frames, "size": options.size}
    stored = Stored(options.out, plan, networks.judges_fingerprint)
    stored.open(resume=options.resume)
    clips = evaluation_clips(options.clips, options.frames, options.size, first=first)
    return run(clips, systems, networks, stored, on_result=_report), stored


def _evaluate(options: argparse.Namespace) -> None:
    networks = Networks.load(options.weights, device=options.device)
    variants = options.variants or available_systems(options.weights)
    systems = build_systems(variants, networks, _settings(options))
    results, stored = _run(options, systems, networks, FIRST_TEST)
    summary = summarise(results, stored.faces(results.get("truth", {})))
    names = {**known_systems(), **BOUNDS, OTHER_PERSON: "the reference against the true faces of other clips"}
    order = ["truth", "vae", *(name for name in names if name not in BOUNDS)]
    names = {name: names[name] for name in order}
    setup = {
        "frames": options.frames,
        "size": options.size,
        "steps": options.steps,
        "guidance": options.guidance,
        "Animate Anyone's guidance": options.anyone_guidance,
        "adapter strength": options.strength,
        "HJB rate": options.hjb_rate,
        "HJB iterations": options.hjb_iterations,
        "weights": networks.fingerprint,
        "judges": networks.judges_fingerprint,
    }
    write_table(options.out, summary, setup, names)
    Image.fromarray(plot_means(results, summary, order)).save(options.out / "means.png")
    Image.fromarray(plot_differences(results, summary, order)).save(options.out / "differences.png")
    _write_sheet(options, results, stored)
    for target in summary.targets:
        print(f"{target.verdict:12} {target.promise}: {target.found or '–'}")
    print(options.out / "table.md")


def _write_sheet(options: argparse.Namespace, results: Results, stored: Stored) -> None:
    count = min(options.clips, SHEET_CLIPS)
    clips = list(evaluation_clips(count, options.frames, options.size))
    frames = {}
    for name in SHEET_SYSTEMS:
        made = {clip.name: stored.frames(name, clip.name) for clip in clips}
        if all(pictures is not None for pictures in made.values()):
            frames[name] = made
    Image.fromarray(contact_sheet(clips, frames)).save(options.out / "sheet.png")


def _sweep(options: argparse.Namespace) -> None:
    networks = Networks.load(options.weights, device=options.device, with_judge=False)
    systems = sweep_systems(parse_axes(options.sweep), networks, _settings(options))
    results, _ = _run(options, systems, networks, FIRST_VALIDATION)
    wanted = {system.name for system in systems}
    text = sweep_markdown({name: clips for name, clips in results.items() if name in wanted})
    (options.out / "sweep.md").write_text(text, encoding="utf-8")
    print(text)


def _report(progress: Progress) -> None:
    seconds = "kept" if progress.seconds is None else f"{progress.seconds:.1f} s"
    figures = ", ".join(f"{key} {value:.4g}" for key, value in progress.measures.items() if value is not None)
    print(f"{progress.clip} {progress.system:14} {seconds:>8}  {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
