"""Runs the systems on the clips, keeps what is done, and goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..pose.draw import Picture
from .clips import EvaluationClip
from .judging import Judge, Measures
from .networks import Networks
from .stored import Results, Stored
from .systems import System

BOUNDS = {
    "truth": "the true frames themselves",
    "vae": "the true frames through the VAE and back: the best that latents can give",
}
"""Rows that see the truth; they say how far the measures themselves can be trusted."""
MEANT_FOR_TRUTH = ("pose", "csim", "csim_climbed")


@dataclass(frozen=True)
class Progress:
    """Something has been judged: clip, system, seconds of animating (None if its frames were there already)."""

    clip: str
    system: str
    seconds: float | None
    measures: Measures


def run(
    clips: Iterable[EvaluationClip],
    systems: Sequence[System],
    networks: Networks,
    stored: Stored,
    *,
    on_result: Callable[[Progress], None] = lambda progress: None,
) -> Results:
    """Animate and judge what is not there yet: all systems on the first clip, then on the second, and so on.

    Args:
        clips: see `evaluation_clips`.
        systems: see `build_systems`.
        networks: the judges.
        stored: an opened folder.
        on_result: told of every new result; may raise to stop.

    Returns:
        Everything in the folder.

    Raises:
        InputError: stored frames of a system were made with other weights or settings.
    """
    for system in systems:
        stored.check_system(system.name, system.fingerprint)
    done = stored.results()
    for clip in clips:
        bounds = [name for name in BOUNDS if clip.name not in done.get(name, {})]
        missing = [system for system in systems if clip.name not in done.get(system.name, {})]
        if not bounds and not missing:
            continue
        judge = Judge(networks, clip)
        for name in bounds:
            _save_truth(stored, judge)
            _finish(stored, judge, name, _bound(judge, name), None, on_result)
        for system in missing:
            frames, seconds = _animated(stored, system, clip)
            _finish(stored, judge, system.name, frames, seconds, on_result)
    return stored.results()


def _animated(stored: Stored, system: System, clip: EvaluationClip) -> tuple[Picture, float | None]:
    """The frames, kept or new, and the seconds they took if they are new."""
    frames = stored.frames(system.name, clip.name)
    if frames is not None:
        return frames, None
    began = time.perf_counter()
    frames = system.animate(clip.inputs)
    seconds = time.perf_counter() - began
    stored.save_frames(system.name, clip.name, frames)
    return frames, seconds


def _finish(
    stored: Stored,
    judge: Judge,
    name: str,
    frames: Picture,
    seconds: float | None,
    on_result: Callable[[Progress], None],
) -> None:
    measures = judge.measures(frames)
    if name == "truth":  # the rest compares the truth with itself
        measures = {key: value if key in MEANT_FOR_TRUTH else None for key, value in measures.items()}
    stored.save_result(name, judge.clip.name, measures, motion=judge.clip.motion, seconds=seconds)
    on_result(Progress(judge.clip.name, name, seconds, measures))


def _bound(judge: Judge, name: str) -> Picture:
    return judge.clip.frames if name == "truth" else judge.reconstructed()


def _save_truth(stored: Stored, judge: Judge) -> None:
    faces = {}
    for name, true in judge.faces.items():
        faces |= {f"{name}_reference": true.reference.numpy(), f"{name}_frames": true.frames.numpy()}
    stored.save_faces(judge.clip.name, faces)
