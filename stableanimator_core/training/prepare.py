"""Videos -> a training set in StableAnimator's layout: frames, skeletons, face masks, lists, and a report.

    python -m stableanimator_core.training.prepare VIDEOS... --out DATASET --models DIR

VIDEOS are files, folders of videos, and folders of pictures (each one video). A video becomes takes at its
cuts, a take becomes clips at its bad frames. What is left out stands in DATASET/report.txt with the reason.
The same command goes on where it was stopped, and passes over videos that are done and have not changed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError, WeightsError
from . import prepare_settings
from .prepare_checks import UNREADABLE
from .prepare_cuts import CutDetector
from .prepare_report import Report, shown, video_lines
from .prepare_settings import Settings
from .prepare_shot import Networks, Shot
from .prepare_source import Source, SourceFrame, find_sources, read_frames
from .prepare_store import MADE_BY, Dataset, Entry, open_dataset

log = logging.getLogger(__name__)
Say = Callable[[str], None]


def prepare(
    videos: Sequence[str | Path],
    out: str | Path,
    networks: Networks,
    settings: Settings | None = None,
    *,
    again: bool = False,
    relative_lists: bool = False,
    say: Say = log.info,
) -> Report:
    """Add videos to the training set in `out`.

    An exception (also Ctrl-C) leaves whole clips only; calling it again goes on after the last finished take.

    Args:
        videos: files and folders, see `find_sources`.
        out: the data set's folder, made if needed.
        networks: the detectors.
        settings: sizes, choices and thresholds.
        again: prepare videos that are done once more; their clips are replaced.
        relative_lists: write clip folders relative to `out` into the lists.
        say: told what happens, line by line.

    Returns:
        The account of everything in the data set, also written to report.json and report.txt.

    Raises:
        InputError: a path that does not exist, no video at all, or a data set that is in use or damaged. A
            bad video raises nothing: it is listed.
    """
    settings = settings or Settings()
    sources = find_sources(videos, out)
    with open_dataset(out) as dataset:
        try:
            for number, source in enumerate(sources, start=1):
                say(f"[{number}/{len(sources)}] {shown(source.key)}")
                _prepare_one(source, dataset, networks, settings, again, say)
        finally:
            report = Report(dict(dataset.entries), dataset.write_lists(relative_lists))
            report.write(dataset.folder)
    return report


def open_networks(models: Sequence[str | Path], provider: str = "auto") -> Networks:
    """The detectors from the files found in the folders `models` and below.

    Raises:
        WeightsError: a file is missing or another network; all that is missing is named.
        InputError: onnxruntime lacks the provider.
    """
    from ..face.analysis import FaceDetector
    from ..pose.dwpose import open_dwpose
    from ..weights.locate import not_found_message, survey

    roles = ("person_detector", "pose_estimator", "face_detector")
    found = survey(models)
    missing = [not_found_message(role, models) for role in roles if not found[role]]
    if missing:
        raise WeightsError("--models", "files are missing", "\n".join(missing))
    persons, poses, faces = (found[role][0] for role in roles)
    return Networks(open_dwpose(persons, poses, providers=provider), FaceDetector(faces, provider))


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        settings = prepare_settings.from_options(options)
        find_sources(options.videos, options.out)  # refused before networks are opened
        report = prepare(
            options.videos,
            options.out,
            open_networks(options.models, options.provider),
            settings,
            again=options.again,
            relative_lists=options.relative_lists,
        )
    except InputError as error:
        log.error("%s", error)
        return 2
    except KeyboardInterrupt:
        log.error("Stopped. The clips so far are whole; the same command goes on.")
        return 130
    log.info("\n%s", report.as_text())
    return 0 if any(report.clips.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stableanimator_core.training.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEOS", help="videos, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="DATASET", help="the training set")
    parser.add_argument(
        "--models",
        nargs="+",
        type=Path,
        required=True,
        metavar="DIR",
        help="folders that hold yolox_l.onnx, dw-ll_ucoco_384.onnx and scrfd_10g_bnkps.onnx",
    )
    parser.add_argument("--provider", default="auto", help="what onnxruntime runs on (default: auto)")
    parser.add_argument("--again", action="store_true", help="prepare videos that are done once more")
    parser.add_argument(
        "--relative-lists", action="store_true", help="list clips as rec/00001 instead of whole paths"
    )
    prepare_settings.add_options(parser)
    return parser


def _prepare_one(
    source: Source, dataset: Dataset, networks: Networks, settings: Settings, again: bool, say: Say
) -> None:
    entry = dataset.begin(source, settings, again)
    if entry.done:
        other = "" if entry.settings == settings.as_json() else " with other settings; --again prepares anew"
        say(f"  done before{other}")
        return
    if entry.next_frame:
        say(f"  goes on at frame {entry.next_frame}")
    _Video(source, entry, dataset, networks, settings).run()
    for line in video_lines(source.key, entry)[1:]:
        say(line)


class _Video:
    """One video on its way through: take after take, each noted in the manifest when it is done."""

    def __init__(
        self, source: Source, entry: Entry, dataset: Dataset, networks: Networks, settings: Settings
    ):
        self.source, self.entry, self.dataset = source, entry, dataset
        self.networks, self.settings = networks, settings
        self.cuts = CutDetector(settings.cut_threshold)
        self.shot: Shot | None = None

    def run(self) -> None:
        try:
            for frame in read_frames(self.source, self.settings.fps, self.entry.next_frame):
                self._take(frame)
        except InputError as error:
            self.entry.problem = str(error)
        self._end_shot()
        self.entry.done = True
        self.dataset.save()

    def _take(self, frame: SourceFrame) -> None:
        if frame.image is None:
            self._end_shot()
            self.entry.used_frames += 1
            self.entry.drop(UNREADABLE, 1, [(frame.number, frame.number)])
            return
        size = frame.image.shape[:2]
        is_cut = self.cuts.is_cut(frame.image)
        if self.shot is not None:
            changed = self.shot.size != size
            if is_cut or changed:
                self.entry.cuts.append(frame.number)
            if is_cut or changed or len(self.shot) >= self.settings.max_frames:
                self._end_shot()
        if self.shot is None:
            self.shot = Shot(self.dataset.fresh_folder(), size, self.networks, self.settings)
        self.shot.add(frame.number, frame.image)

    def _end_shot(self) -> None:
        """Take in the clips of the present take; a later run goes on after it."""
        shot, self.shot = self.shot, None
        if shot is None:
            return
        note = {"made_by": MADE_BY, "source": self.source.key, "settings": self.settings.as_json()}
        outcome = shot.finish(note)
        self.dataset.take_in(outcome, self.entry)
        for reason, (frames, ranges) in outcome.dropped.items():
            self.entry.drop(reason, frames, ranges)
        self.entry.used_frames += len(shot)
        self.entry.next_frame = shot.numbers[-1] + 1
        self.dataset.save()
        shot.discard()


if __name__ == "__main__":
    sys.exit(main())
