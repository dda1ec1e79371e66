"""Frames of many rendered people in memory-mapped arrays: what the small networks learn from.

The figures come from `stableanimator_core.puppets`. People of the seeds from `HELD_OUT_FROM` on are held out: no
network ever trains on them.
Axes: n frames of the store, H W pixels, j body joints (18).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import open_memmap

from ...errors import InputError
from ...pose.people import BODY_JOINTS, Frame

HELD_OUT_FROM = 1_000_000
"""Person seeds from here on are for evaluation alone."""

_NUM_JOINTS = len(BODY_JOINTS)
_ARRAYS: dict[str, tuple[str, Callable[[int], tuple[int, ...]]]] = {  # name -> dtype, shape of one frame
    "frames": ("u1", lambda size: (size, size, 3)),
    "masks": ("u1", lambda size: (size, size)),
    "boxes": ("f4", lambda size: (4,)),
    "people": ("i4", lambda size: ()),
    "joints": ("f4", lambda size: (_NUM_JOINTS, 2)),
    "joint_scores": ("f4", lambda size: (_NUM_JOINTS,)),
}


class RenderedClip(Protocol):
    """What `make_clip` returns, as far as the store needs it."""

    frames: np.ndarray
    face_masks: np.ndarray
    face_boxes: np.ndarray
    poses: Sequence[Frame]


MakeClip = Callable[[int, int, int, int], RenderedClip]
"""person seed, motion seed, number of frames, side in pixels -> clip; it must be a module's own function."""


@dataclass(frozen=True)
class StorePlan:
    """How many of what.

    Attributes:
        persons: people to train on, seeds 0, 1, ...
        held_out: people to evaluate on, seeds `HELD_OUT_FROM`, ...
        clips: clips of each person, each with its own motion and framing.
        num_frames: consecutive frames of a clip.
        size: side of the frames in pixels.
        seed: shifts the motions.
    """

    persons: int = 1500
    held_out: int = 150
    clips: int = 4
    num_frames: int = 4
    size: int = 128
    seed: int = 0

    @property
    def num_clips(self) -> int:
        return (self.persons + self.held_out) * self.clips

    def seeds_of(self, clip: int) -> tuple[int, int]:
        """Person and motion seed of the clip number `clip`."""
        person, turn = divmod(clip, self.clips)
        if person >= self.persons:
            person += HELD_OUT_FROM - self.persons
        return person, (self.seed * 1009 + person) * self.clips + turn


@dataclass(frozen=True, eq=False)
class FrameStore:
    """The arrays of a store; read only, mapped from disk. Frames of a clip lie together, clips of a person too.

    Attributes:
        plan: what was rendered.
        frames: uint8 [n H W 3] RGB.
        masks: uint8 [n H W], 255 on the face.
        boxes: float32 [n 4] left, top, right, bottom of the face in pixels; NaN where none is visible.
        people: int32 [n] person seeds.
        joints: float32 [n j 2] fractions of the frame; `joint_scores` [n j].
    """

    plan: StorePlan
    frames: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    people: np.ndarray
    joints: np.ndarray
    joint_scores: np.ndarray

    @property
    def training(self) -> np.ndarray:
        """Numbers of the frames to train on."""
        return np.flatnonzero(self.people < HELD_OUT_FROM)

    @property
    def held_out(self) -> np.ndarray:
        """Numbers of the frames of held-out people."""
        return np.flatnonzero(self.people >= HELD_OUT_FROM)

    def clip_starts(self, *, held_out: bool = False) -> np.ndarray:
        """Numbers of the first frames of the clips."""
        chosen = self.held_out if held_out else self.training
        return chosen[:: self.plan.num_frames]

    def with_face(self, numbers: np.ndarray, smallest: float = 8.0) -> np.ndarray:
        """Those of the frames that show a face, of `smallest` pixels at least on its shorter side."""
        boxes = self.boxes[numbers]
        sides = np.nan_to_num(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]), nan=0.0)
        return numbers[sides >= smallest]


def build_store(
    folder: Path,
    plan: StorePlan,
    *,
    make_clip: MakeClip | None = None,
    workers: int = 2,
    on_clip: Callable[[int, int], None] | None = None,
) -> FrameStore:
    """Render what is not there yet, and open the store. Interrupted, it goes on where it stopped.

    Args:
        folder: the store's own folder.
        plan: how many of what.
        make_clip: the renderer; None takes the puppets.
        workers: processes; 0 renders in this one.
        on_clip: called with the clips done and their number in all.

    Raises:
        InputError: the folder holds a store of another plan.
    """
    _create(folder, plan)
    done = open_memmap(folder / "done.npy", mode="r+")
    todo = [(folder, plan, int(clip), make_clip) for clip in np.flatnonzero(done == 0)]
    for clip in _rendered(todo, workers):
        done[clip] = 1
        if on_clip is not None:
            on_clip(int(done.sum()), plan.num_clips)
    done.flush()
    return open_store(folder)


def open_store(folder: Path) -> FrameStore:
    """Open a complete store.

    Raises:
        InputError: there is none, or it is not complete.
    """
    remedy = "build it first: python -m stableanimator_core.training.small store"
    try:
        plan = StorePlan(**json.loads((folder / "plan.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(str(folder), f"is no frame store ({error})", remedy) from error
    missing = int((np.load(folder / "done.npy", mmap_mode="r") == 0).sum())
    if missing:
        raise InputError(str(folder), f"lacks {missing} of {plan.num_clips} clips", remedy)
    arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    for name in ("boxes", "people", "joints", "joint_scores"):
        arrays[name] = np.array(arrays[name])
    return FrameStore(plan, **arrays)


def _create(folder: Path, plan: StorePlan) -> None:
    path = folder / "plan.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != vars(plan):
            raise InputError(str(folder), f"holds a store of another plan, {found}", "choose another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, (dtype, shape) in _ARRAYS.items():
        size = (plan.num_clips * plan.num_frames, *shape(plan.size))
        open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.dtype(dtype), shape=size).flush()
    open_memmap(folder / "done.npy", mode="w+", dtype=np.uint8, shape=(plan.num_clips,)).flush()
    path.write_text(json.dumps(vars(plan)) + "\n")  # last: a folder without it is begun anew


_Task = tuple[Path, StorePlan, int, MakeClip | None]


def _rendered(todo: list[_Task], workers: int) -> Iterator[int]:
    if not workers or len(todo) < 2:
        yield from map(_render, todo)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_render, todo, chunksize=4)


def _render(task: _Task) -> int:
    """Render one clip into its place; its number."""
    folder, plan, number, make_clip = task
    if make_clip is None:
        from ...puppets import make_clip as puppets

        make_clip = puppets
    person, motion = plan.seeds_of(number)
    clip = make_clip(person, motion, plan.num_frames, plan.size)
    bodies = [frame.people[0] if frame.people else None for frame in clip.poses]
    values = {
        "frames": clip.frames,
        "masks": clip.face_masks,
        "boxes": clip.face_boxes,
        "people": np.full(plan.num_frames, person),
        "joints": [body.body if body else np.zeros((_NUM_JOINTS, 2)) for body in bodies],
        "joint_scores": [body.body_score if body else np.zeros(_NUM_JOINTS) for body in bodies],
    }
    place = slice(number * plan.num_frames, (number + 1) * plan.num_frames)
    for name, value in values.items():
        array = open_memmap(folder / f"{name}.npy", mode="r+")
        array[place] = np.asarray(value)
        array.flush()
    return number
