"""The clips that are judged: held-out people in held-out motions, and in real recorded ones. Fixed by their seeds.

A clip is rendered longer than it is judged: the reference picture is the most face-on one of the frames behind the
judged window, with a gap between them, so the same person in the same clothes and place in another pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..face.boxes import FaceBoxes, boxes_from_skeleton
from ..pose import people
from ..pose.draw import Picture
from ..pose.keypoints import load_pose_json
from ..puppets import PuppetClip, make_clip
from ..puppets.look import draw_person
from ..puppets.motion import Pose
from ..puppets.recorded import lift
from .body_height import body_height

FIRST_TEST = 1_200_000
"""Seed of the first test person and motion; training keeps below 900,000, its own measures below 1,200,000."""
FIRST_VALIDATION = 900_000
"""Seed of the first person that settings may be chosen on."""
GAP, REFERENCES = 4, 8
"""Frames behind the judged ones that are left out, and frames behind those that may be the reference."""
RECORDINGS = ("jumping_jacks_1768x994", "walk_profile")
RECORDED_EVERY = 5
"""One clip in so many moves as recorded, the others as generated."""

_MOTIONS = Path(__file__).resolve().parents[2] / "assets" / "motion"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a system may see.

    Attributes:
        reference: uint8 [H W 3] RGB.
        reference_box: left, top, right, bottom of the face in it, pixels.
        poses: skeleton pictures, uint8 [f H W 3].
        skeletons: the same as points.
        seed: of the noise.
    """

    reference: Picture
    reference_box: tuple[float, float, float, float]
    poses: Picture
    skeletons: people.Clip
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.reference.shape[0], self.reference.shape[1]

    def face_boxes(self) -> FaceBoxes:
        """Where the face will be, from the skeletons alone: what the Face Masks node gives."""
        return boxes_from_skeleton(self.skeletons, *self.size)


@dataclass(frozen=True, eq=False)
class EvaluationClip:
    """Inputs, and the truth that they are judged by.

    Attributes:
        name: its seed.
        motion: "generated", or the recording's name.
        inputs: see `Inputs`.
        frames: the true rendering, uint8 [f H W 3].
        face_boxes: [f 4] left, top, right, bottom; NaN where no face is seen.
        body_height: of the standing person, pixels.
    """

    name: str
    motion: str
    inputs: Inputs
    frames: Picture
    face_boxes: NDArray[np.float64]
    body_height: float

    @property
    def has_face(self) -> NDArray[np.bool_]:
        """[f] whether the true face can be seen."""
        return np.asarray(np.isfinite(self.face_boxes).all(axis=1))


def evaluation_clips(
    count: int, num_frames: int, size: int = 128, *, first: int = FIRST_TEST
) -> Iterator[EvaluationClip]:
    """The first `count` clips from the seed `first` on; the same ones in every run.

    Seeds whose reference, or more than half of whose frames, show no face are passed over: nothing could be
    said about likeness there.

    Raises:
        InputError: less than one clip, or clips of less than two frames.
    """
    if count < 1 or num_frames < 2:
        problem = f"are {count} of {num_frames} frames"
        raise InputError("evaluation clips", problem, "ask for one clip at least, of two frames at least")
    seed = first
    while count:
        clip = evaluation_clip(seed, num_frames, size)
        if clip is not None:
            count -= 1
            yield clip
        seed += 1


def evaluation_clip(seed: int, num_frames: int, size: int = 128) -> EvaluationClip | None:
    """The clip of a seed; None if too little of its face is seen."""
    recording = recording_of(seed)
    whole = num_frames + GAP + REFERENCES
    poses = _recorded_poses(recording, seed, whole) if recording else None
    rendered = make_clip(seed, seed, whole, size, poses=poses)
    reference = most_face_on(rendered, range(num_frames + GAP, whole))
    boxes = rendered.face_boxes[:num_frames]
    if reference is None or np.isnan(boxes).any(axis=1).mean() > 0.5:
        return None
    left, top, right, bottom = (float(side) for side in rendered.face_boxes[reference])
    skeletons = rendered.poses[:num_frames]
    inputs = Inputs(
        reference=rendered.frames[reference],
        reference_box=(left, top, right, bottom),
        poses=rendered.skeletons()[:num_frames],
        skeletons=skeletons,
        seed=seed,
    )
    height = body_height(draw_person(seed), rendered.poses)
    return EvaluationClip(
        str(seed), recording or "generated", inputs, rendered.frames[:num_frames], boxes, height
    )


def recording_of(seed: int) -> str | None:
    """The recording that the clip of this seed moves by, if any."""
    turn, place = divmod(seed, RECORDED_EVERY)
    return RECORDINGS[turn % len(RECORDINGS)] if place == RECORDED_EVERY - 1 else None


def most_face_on(clip: PuppetClip, candidates: range) -> int | None:
    """The frame in which the nose is nearest to the middle of the eyes; None if no candidate shows a face."""
    found: list[tuple[float, int]] = []
    for number in candidates:
        box, person = clip.face_boxes[number], clip.poses[number].people[0]
        if np.isfinite(box).all():
            eyes = [people.JOINT["r_eye"], people.JOINT["l_eye"]]
            seen = person.body_score[[*eyes, people.JOINT["nose"]]].all()
            offset = person.body[eyes, 0].mean() - person.body[people.JOINT["nose"], 0]
            found.append((abs(float(offset)) / float(box[2] - box[0]) if seen else np.inf, number))
    return min(found)[1] if found else None


def _recorded_poses(name: str, seed: int, count: int) -> list[Pose]:
    """`count` poses of a recording from a place drawn by the seed; every second frame of it if that is enough."""
    poses = lift(load_pose_json(_MOTIONS / f"{name}.json"))
    stride = 2 if len(poses) >= 2 * count else 1
    poses = poses[::stride]
    start = int(np.random.default_rng([seed, 4]).integers(max(1, len(poses) - count + 1)))
    return poses[start : start + count]
