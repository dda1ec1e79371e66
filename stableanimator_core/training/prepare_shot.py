"""One take of a video: its frames wait on the disk, are judged together, and leave as clip folders.

Masks as StableAnimator's `face_mask_extraction.py` @ 020e7f2 makes them, from the stored picture: all faces,
255 in the detector's boxes (corners truncated and included, no margin), 0 elsewhere, 255 everywhere if there
is no face. Its second detector (facexlib) is not used; ours looks again at smaller sizes instead.
Skeletons are drawn from what `poses.json` holds, so that they can be drawn again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..face.analysis import FaceDetector
from ..face.boxes import FaceBoxes, boxes_from_detector, boxes_to_masks
from ..pose.draw import draw_frame
from ..pose.dwpose import DWPose
from ..pose.keypoints import load_pose_json, save_pose_json
from ..pose.people import Frame
from . import prepare_checks as checks
from .prepare_settings import Settings

_COMPRESSION = 4


@dataclass(frozen=True)
class Networks:
    """The detectors, see `pose.dwpose.open_dwpose` and `face.analysis.FaceDetector`."""

    dwpose: DWPose
    faces: FaceDetector


@dataclass
class Draft:
    """A finished clip that is not yet in its place.

    Attributes:
        folder: holds images, poses, faces, poses.json and clip.json.
        image_set: "rec" or "vec".
        numbers: of its frames, in the source.
        faceless: of its own frames without a face, from 0.
    """

    folder: Path
    image_set: str
    numbers: list[int]
    faceless: list[int]


@dataclass
class Outcome:
    """What became of a take.

    Attributes:
        drafts: its clips.
        dropped: reason -> how many frames, and first and last number of each run of them.
    """

    drafts: list[Draft] = field(default_factory=list)
    dropped: dict[str, tuple[int, list[tuple[int, int]]]] = field(default_factory=dict)


class Shot:
    """Frames of one size without a cut.

    Args:
        work: an empty folder of its own.
        size: height and width of the frames.
        networks: the detectors.
        settings: thresholds and sizes.
    """

    def __init__(self, work: Path, size: tuple[int, int], networks: Networks, settings: Settings):
        self.work, self.size, self.networks, self.settings = work, size, networks, settings
        self.placement = checks.place(*size, settings)
        self.numbers: list[int] = []
        self._frames: list[Frame] = []
        self._faces: dict[int, FaceBoxes] = {}  # place in the take -> one list of boxes
        (work / "frames").mkdir()

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int, image: np.ndarray) -> None:
        """Detect the people of a frame (RGB uint8 [H W 3]) and keep it, scaled, on the disk."""
        people = self.networks.dwpose.detect_people(image)
        height, width = self.placement.scaled
        picture = Image.fromarray(image)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        picture.save(self._path(len(self)), compress_level=_COMPRESSION)
        self._frames.append(Frame(people, self.size[1], self.size[0]))
        self.numbers.append(number)

    def finish(self, note: dict[str, Any]) -> Outcome:
        """Judge the frames and write the clips below the working folder.

        Args:
            note: what clip.json says besides the frames.
        """
        frames, problems = checks.choose_people(self._frames, self.settings)
        corner = checks.cut_corner(frames, self.placement)
        frames = [checks.in_picture(frame, self.placement, corner) for frame in frames]
        for place, frame in enumerate(frames):
            problems[place] = problems[place] or checks.joints_problem(frame, self.settings)
            if not problems[place]:
                problems[place] = self._finish_picture(place, frame, corner)
        outcome, clips = Outcome(), self._clips(problems)
        for places in clips:
            folder = self.work / f"clip_{len(outcome.drafts)}"
            outcome.drafts.append(self._write(folder, places, [frames[place] for place in places], note))
        outcome.dropped = self._dropped(problems)
        return outcome

    def discard(self) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _path(self, place: int) -> Path:
        return self.work / "frames" / f"{place}.png"

    def _finish_picture(self, place: int, frame: Frame, corner: tuple[int, int]) -> str:
        """Cut the waiting picture, look for faces in what is stored; its problem."""
        height, width = self.placement.final
        with Image.open(self._path(place)) as opened:
            picture = opened.convert("RGB")
        if self.placement.spare != (0, 0):
            top, left = corner
            picture = picture.crop((left, top, left + width, top + height))
            picture.save(self._path(place), compress_level=_COMPRESSION)
        pixels = np.asarray(picture)[None]
        channels = self.settings.face_channels
        faces = self._faces[place] = boxes_from_detector(self.networks.faces, pixels, channels=channels)
        return checks.picture_problem(picture, frame, faces, self.placement.image_set, self.settings)

    def _clips(self, problems: list[str]) -> list[list[int]]:
        """Places of each clip's frames; the frames of runs that are none get their problem."""
        clips = []
        for run in checks.good_runs(problems, self.settings.bridge):
            seen = sum(bool(self._faces[place][0]) for place in run)
            if len(run) < self.settings.min_frames:
                problem = checks.TOO_SHORT
            elif seen < self.settings.min_face_frames * len(run):
                problem = checks.FACE_ABSENT
            else:
                clips.append(run)
                continue
            for place in run:
                problems[place] = problem
        return clips

    def _write(self, folder: Path, places: list[int], frames: list[Frame], note: dict[str, Any]) -> Draft:
        for name in ("images", "poses", "faces"):
            (folder / name).mkdir(parents=True)
        save_pose_json(folder / "poses.json", frames)
        height, width = self.placement.final
        for index, frame in enumerate(load_pose_json(folder / "poses.json")):
            name = f"frame_{index}.png"
            self._path(places[index]).rename(folder / "images" / name)
            skeleton = Image.fromarray(draw_frame(frame, height, width))
            skeleton.save(folder / "poses" / name, compress_level=_COMPRESSION)
            face_mask(self._faces[places[index]], height, width).save(folder / "faces" / name)
        numbers = [self.numbers[place] for place in places]
        faceless = [index for index, place in enumerate(places) if not self._faces[place][0]]
        about = {**note, "size": [width, height], "source_frames": numbers, "frames_without_face": faceless}
        (folder / "clip.json").write_text(json.dumps(about), encoding="utf-8")
        return Draft(folder, self.placement.image_set, numbers, faceless)

    def _dropped(self, problems: list[str]) -> dict[str, tuple[int, list[tuple[int, int]]]]:
        runs: dict[str, list[tuple[int, int]]] = {}
        for place, problem in enumerate(problems):
            number = self.numbers[place]
            if problem and place and problems[place - 1] == problem:
                runs[problem][-1] = (runs[problem][-1][0], number)
            elif problem:
                runs.setdefault(problem, []).append((number, number))
        return {reason: (problems.count(reason), found) for reason, found in runs.items()}


def face_mask(faces: FaceBoxes, height: int, width: int) -> Image.Image:
    """The official mask of one frame, 8-bit grey: 255 in the boxes, or everywhere without any."""
    if not faces[0]:
        return Image.new("L", (width, height), 255)
    mask = boxes_to_masks(faces, height, width)[0].numpy()  # [H W] 0 or 1
    return Image.fromarray((mask * 255).astype(np.uint8))
