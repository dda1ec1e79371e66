"""Results on disk: each clip of each system is animated once and judged once, whatever interrupts the run.

OUT/frames/SYSTEM/CLIP.npz     the frames
OUT/frames/SYSTEM/system.json  what made them
OUT/results.jsonl              one line for each judged clip of a system
OUT/faces/CLIP.npz             identities in the true frames
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pose.draw import Picture
from .judging import Measures

Array = NDArray[Any]
Results = dict[str, dict[str, Measures]]
"""System -> clip -> measures."""


@dataclass(frozen=True)
class Stored:
    """The results in a folder.

    Attributes:
        folder: OUT.
        clips: what all clips have in common; a folder holds clips of one kind.
        judges: fingerprint of the judging networks; lines of others do not count.
    """

    folder: Path
    clips: dict[str, Any]
    judges: str

    def open(self, *, resume: bool) -> None:
        """Begin or continue.

        Raises:
            InputError: the folder holds results and `resume` is false, or they are of other clips.
        """
        plan = self.folder / "clips.json"
        if plan.is_file():
            found = json.loads(plan.read_text(encoding="utf-8"))
            if not resume:
                raise InputError(str(self.folder), "holds results", "give --resume, or another folder")
            if found != self.clips:
                problem = f"holds results of other clips: {found}, not {self.clips}"
                raise InputError(str(self.folder), problem, "choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(plan, json.dumps(self.clips))

    def check_system(self, name: str, fingerprint: str) -> None:
        """Note what makes a system's frames.

        Raises:
            InputError: its stored frames were made with other weights or settings.
        """
        path = self.folder / "frames" / name / "system.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != fingerprint:
            problem = f"holds frames of {name} made with other weights or settings"
            raise InputError(str(self.folder), problem, f"delete {path.parent}, or choose another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(fingerprint))

    def frames(self, name: str, clip: str) -> Picture | None:
        """uint8 [f H W 3] that the system has made before, or None."""
        path = self.folder / "frames" / name / f"{clip}.npz"
        return np.load(path)["frames"] if path.is_file() else None

    def save_frames(self, name: str, clip: str, frames: Picture) -> None:
        """Keep a system's frames."""
        path = self.folder / "frames" / name / f"{clip}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, frames=frames)
        os.replace(part, path)

    def results(self) -> Results:
        """Everything judged so far by these judges, of frames that are as they were judged.

        A line cut short by an interruption is left out; of two lines about the same the later one counts.
        """
        found: Results = {}
        path = self.folder / "results.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            entry = _parsed(line)
            if entry is None or entry["judges"] != self.judges:
                continue
            if entry["made_by"] == self._maker(entry["system"]):
                found.setdefault(entry["system"], {})[entry["clip"]] = entry["measures"]
        return found

    def save_result(self, name: str, clip: str, measures: Measures, **more: Any) -> None:
        """Append a judged clip."""
        origin = {"judges": self.judges, "made_by": self._maker(name)}
        entry = {"system": name, "clip": clip, **origin, **more, "measures": measures}
        path = self.folder / "results.jsonl"
        broken = path.is_file() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if broken else "") + json.dumps(entry) + "\n")

    def _maker(self, name: str) -> str:
        """What makes the system's frames, shortened; empty for rows that need no system."""
        path = self.folder / "frames" / name / "system.json"
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""

    def save_faces(self, clip: str, faces: dict[str, Array]) -> None:
        """Keep the identities in a clip's true frames: arrays by name."""
        (self.folder / "faces").mkdir(parents=True, exist_ok=True)
        np.savez(self.folder / "faces" / f"{clip}.npz", allow_pickle=False, **faces)

    def faces(self, clips: Iterable[str]) -> dict[str, dict[str, Array]]:
        """What `save_faces` kept, of those of the clips that have it."""
        paths = {clip: self.folder / "faces" / f"{clip}.npz" for clip in clips}
        return {clip: dict(np.load(path)) for clip, path in paths.items() if path.is_file()}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)
