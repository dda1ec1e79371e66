"""The data set's folder: whole clips or none, and a manifest of what is done.

    DATASET/rec/00001/{images,poses,faces}/frame_0.png ...   also poses.json and clip.json
    DATASET/vec/00001/...
    DATASET/video_rec_path.txt, video_vec_path.txt           one clip folder a line
    DATASET/prepare.json                                     the manifest
    DATASET/report.json, report.txt

A clip is made in `.prepare_work` and renamed into place; folders are numbered, so no name of a video ever
becomes a path. After a kill at any moment the next run goes on after the last take the manifest holds and
removes clips it does not know of, if they are of the same video. Layout: StableAnimator, README "Model
Training" @ 020e7f2.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .prepare_settings import SETS, Settings
from .prepare_shot import Draft, Outcome
from .prepare_source import Source

MANIFEST = "prepare.json"
MADE_BY = "stableanimator_core.training.prepare"
_WORK = ".prepare_work"
_VERSION = 1
_CLIP_NAME = re.compile(rf"({'|'.join(SETS)})/(\d{{5,9}})")


@dataclass
class Entry:
    """What the manifest holds of one video.

    Attributes:
        fingerprint: see `Source.fingerprint`; a video of another one is prepared anew.
        settings: see `Settings`.
        done: whether all of it was worked on.
        next_frame: where to go on, if not.
        used_frames: how many frames were looked at.
        clips: {"name", "frames", "first", "last", "without_face"} of each clip, numbers in the source.
        dropped: reason -> {"frames", "ranges"}.
        cuts: numbers of the frames that begin a new take.
        problem: why the video could not be read (on), "" if it could.
    """

    fingerprint: dict[str, int]
    settings: dict[str, Any]
    done: bool = False
    next_frame: int = 0
    used_frames: int = 0
    clips: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    problem: str = ""

    def drop(self, reason: str, frames: int, ranges: list[tuple[int, int]]) -> None:
        so_far = self.dropped.setdefault(reason, {"frames": 0, "ranges": []})
        so_far["frames"] += frames
        so_far["ranges"] += [list(run) for run in ranges]


class Dataset:
    """The folder while it is open, see `open_dataset`.

    Attributes:
        entries: video -> what is known of it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries = _read_manifest(folder / MANIFEST)
        self.work = folder / _WORK
        known = {clip["name"] for entry in self.entries.values() for clip in entry.clips}
        unknown = [name for image_set in SETS for name in self._clips(image_set) if name not in known]
        self._strays = {name: _source_of(folder / name) for name in unknown}

    def begin(self, source: Source, settings: Settings, again: bool) -> Entry:
        """The video's entry: the one there is, if it still fits, else a new one, and its old clips go."""
        fingerprint = source.fingerprint()
        entry = self.entries.get(source.key)
        fits = entry is not None and entry.fingerprint == fingerprint
        if entry is None or not fits or again or (not entry.done and entry.settings != settings.as_json()):
            self._strays |= {clip["name"]: source.key for clip in entry.clips} if entry else {}
            entry = self.entries[source.key] = Entry(fingerprint, settings.as_json())
            self.save()  # before clips go that the old manifest still names
        for name in [name for name, made_from in self._strays.items() if made_from == source.key]:
            del self._strays[name]
            self._remove(name, source.key)
        return entry

    def fresh_folder(self) -> Path:
        """An empty folder for unfinished work."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def take_in(self, outcome: Outcome, entry: Entry) -> None:
        """Put a take's clips into their places and note them; `save` makes it last."""
        for draft in outcome.drafts:
            clip = {
                "name": self._place(draft),
                "frames": len(draft.numbers),
                "first": draft.numbers[0],
                "last": draft.numbers[-1],
                "without_face": len(draft.faceless),
            }
            entry.clips.append(clip)

    def save(self) -> None:
        """Write the manifest."""
        videos = {key: asdict(entry) for key, entry in self.entries.items()}
        write_whole(self.folder / MANIFEST, json.dumps({"version": _VERSION, "videos": videos}, indent=1))

    def write_lists(self, relative: bool = False) -> dict[str, int]:
        """Write both lists from the clips that are there; set -> number of clips.

        Args:
            relative: write "rec/00001" instead of whole paths.
        """
        counts = {}
        for image_set in SETS:
            clips = sorted(self._clips(image_set))
            lines = [name if relative else (self.folder / name).as_posix() for name in clips]
            write_whole(self.folder / f"video_{image_set}_path.txt", "".join(f"{line}\n" for line in lines))
            counts[image_set] = len(clips)
        return counts

    def _clips(self, image_set: str) -> Iterator[str]:
        folder = self.folder / image_set
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.isdecimal() and (path / "images").is_dir():
                yield f"{image_set}/{path.name}"

    def _place(self, draft: Draft) -> str:
        """Rename a clip into the first free number after the last; its name in the data set."""
        parent = self.folder / draft.image_set
        parent.mkdir(exist_ok=True)
        taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
        name = f"{draft.image_set}/{max(taken, default=0) + 1:05d}"
        draft.folder.rename(self.folder / name)
        return name

    def _remove(self, name: str, key: str) -> None:
        if _CLIP_NAME.fullmatch(name) and _source_of(self.folder / name) == key:
            away = self.fresh_folder()
            (self.folder / name).rename(away / "clip")  # at once, so that no half clip is ever listed
            shutil.rmtree(away)


@contextmanager
def open_dataset(folder: str | Path) -> Iterator[Dataset]:
    """The data set, for one run at a time; what an earlier run left unfinished is cleared away.

    Raises:
        InputError: another run works here, the place cannot be written, or the manifest is damaged.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".prepare_lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(str(folder), "is in use by another run", "wait for it, or stop it") from error
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InputError(str(folder), problem, "choose another folder for --out") from error
    try:
        dataset = Dataset(folder)
        shutil.rmtree(dataset.work, ignore_errors=True)
        dataset.work.mkdir()
        try:
            yield dataset
        finally:
            shutil.rmtree(dataset.work, ignore_errors=True)
    finally:
        lock.release()


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all; for one writer at a time."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _read_manifest(path: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise ValueError(f"version {data['version']}")
        return {key: Entry(**entry) for key, entry in data["videos"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "restore it, or remove it: then every video is prepared anew and its clips are replaced"
        raise InputError(str(path), f"is not a manifest of this command ({error})", remedy) from error


def _source_of(clip: Path) -> str | None:
    """The video a clip of ours was made from; None for any other folder."""
    try:
        about = json.loads((clip / "clip.json").read_text(encoding="utf-8"))
        return about["source"] if about["made_by"] == MADE_BY else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
