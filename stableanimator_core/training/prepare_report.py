"""What was kept and what was dropped, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .prepare_checks import REASONS
from .prepare_store import Entry, write_whole

_SHOWN_RANGES = 6


@dataclass(frozen=True)
class Report:
    """The whole data set's account.

    Attributes:
        videos: video -> its entry in the manifest.
        clips: set -> clip folders that are there, by whomever.
    """

    videos: dict[str, Entry]
    clips: dict[str, int]

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> frames of all videos."""
        sums = {}
        for reason in REASONS:
            count = sum(entry.dropped.get(reason, {"frames": 0})["frames"] for entry in self.videos.values())
            if count:
                sums[reason] = count
        return sums

    def as_json(self) -> dict[str, Any]:
        entries = self.videos.values()
        return {
            "clips": self.clips,
            "frames": {
                "looked_at": sum(entry.used_frames for entry in entries),
                "kept": sum(kept_frames(entry) for entry in entries),
                "dropped": self.dropped,
            },
            "unreadable": {key: entry.problem for key, entry in self.videos.items() if entry.problem},
            "videos": {key: asdict(entry) for key, entry in self.videos.items()},
        }

    def as_text(self) -> str:
        """A block of lines for each video, then the sums."""
        lines = [line for key, entry in self.videos.items() for line in (*video_lines(key, entry), "")]
        looked_at = sum(entry.used_frames for entry in self.videos.values())
        kept = sum(kept_frames(entry) for entry in self.videos.values())
        clips = ", ".join(f"{count} in {name}" for name, count in self.clips.items())
        lines.append(f"{len(self.videos)} videos, {looked_at} frames looked at, {kept} kept. Clips: {clips}.")
        lines += [f"  {reason:<16}{count:>8} frames dropped" for reason, count in self.dropped.items()]
        unreadable = sum(bool(entry.problem) for entry in self.videos.values())
        if unreadable:
            lines.append(f"  {unreadable} of the videos could not be read, or not to their end: see above")
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """report.json and report.txt."""
        write_whole(folder / "report.json", json.dumps(self.as_json(), indent=1))
        write_whole(folder / "report.txt", self.as_text())


def kept_frames(entry: Entry) -> int:
    return sum(clip["frames"] for clip in entry.clips)


def video_lines(key: str, entry: Entry) -> list[str]:
    """What became of one video."""
    state = "" if entry.done else ", not finished"
    count = len(entry.clips)
    clips = f"{count} clip{'' if count == 1 else 's'}"
    lines = [shown(key), f"  {clips}, {kept_frames(entry)} of {entry.used_frames} frames kept{state}"]
    if entry.problem:
        lines.append(f"  {shown(entry.problem)}")
    for clip in entry.clips:
        faceless = f", {clip['without_face']} without a face" if clip["without_face"] else ""
        lines.append(
            f"  {clip['name']}: {clip['frames']} frames, {clip['first']} to {clip['last']}{faceless}"
        )
    if entry.cuts:
        lines.append(f"  cut before {_listed([str(number) for number in entry.cuts])}")
    for reason, what in entry.dropped.items():
        lines.append(f"  dropped, {reason}: {what['frames']} frames ({_listed(_ranges(what['ranges']))})")
    return lines


def shown(text: str) -> str:
    """Without line breaks and other control characters, which names of files may hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _ranges(ranges: Sequence[Sequence[int]]) -> list[str]:
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_RANGES
    return ", ".join(names[:_SHOWN_RANGES]) + (f" and {more} more" if more > 0 else "")
