"""Puppets that move as recorded people did, sets of them on disk, and the numbers that nobody is trained on."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_core.errors import InputError
from stableanimator_core.evaluation import clips as evaluation
from stableanimator_core.pose.keypoints import load_pose_json
from stableanimator_core.pose.people import JOINT, Frame
from stableanimator_core.puppets import make_clip
from stableanimator_core.puppets.__main__ import main
from stableanimator_core.puppets.body import place
from stableanimator_core.puppets.look import draw_person
from stableanimator_core.puppets.recorded import _CHAINS, lift
from stableanimator_core.puppets.training_set import HELD_OUT, write_set
from stableanimator_core.training.settings import Bucket, Data
from stableanimator_core.training.small.store import HELD_OUT_FROM, StorePlan
from stableanimator_core.training.videos import Report, find_videos

MOTIONS = Path(__file__).resolve().parents[2] / "assets" / "motion"


@pytest.fixture(scope="module", params=["jumping_jacks_512x512", "walk_profile"])
def recording(request):
    return load_pose_json(MOTIONS / f"{request.param}.json")


def limbs_of(frame):
    """[8 2] of the recorded limbs in pixels, NaN where an end was not seen."""
    person = frame.people[0]
    points = np.where(person.visible[:, None], person.body * frame.size, np.nan)
    return np.array([points[JOINT[b]] - points[JOINT[a]] for a, b in _CHAINS])


def limbs_in_space(body):
    """[8 3] in the order of the recording's chains: arm and leg of the right side, then of the left."""
    steps = [np.diff(part[side], axis=0) for side in (0, 1) for part in (body.arms, body.legs)]
    return np.concatenate(steps)


def test_lifted_motion_keeps_the_puppets_bones_and_follows_the_recorded_points(recording):
    person = draw_person(7)
    bones = np.array([person.arm, 0.95 * person.arm, person.leg, 0.95 * person.leg] * 2)
    recorded = np.array([limbs_of(frame) for frame in recording])
    ours = np.array([limbs_in_space(place(person, pose)) for pose in lift(recording)])
    assert ours.shape == (len(recording), 8, 3)
    assert np.allclose(np.linalg.norm(ours, axis=-1), bones)
    lengths = np.linalg.norm(recorded, axis=-1)
    seen = lengths > 0.2 * np.nanmax(lengths, axis=0)  # a limb seen end on has no direction
    cosine = (recorded * ours[..., :2]).sum(axis=-1) / lengths / np.linalg.norm(ours[..., :2], axis=-1)
    assert seen.mean() > 0.7 and cosine[seen].min() > 0.9999
    # as much shorter as the recorded limb looks, against its full length
    full = np.array([np.nanpercentile(row, 95) for row in lengths.T])
    shares = np.minimum(lengths / full, 1)
    foreshortened = np.linalg.norm(ours[..., :2], axis=-1) / bones
    assert np.nanmax(np.abs(shares - foreshortened)[seen]) < 0.03


def test_a_puppet_dances_as_recorded(recording):
    poses = lift(recording)[:3]
    clip = make_clip(2, 1, 4, 64, poses=poses, framing="full")
    bodies = [frame.people[0].body for frame in clip.poses]
    assert np.array_equal(bodies[3], bodies[0])  # repeated
    assert not np.array_equal(bodies[1], bodies[0])


def test_frames_without_a_person_are_bridged(recording):
    frames = list(recording[:5])
    frames[2] = Frame((), frames[2].width, frames[2].height)
    poses = lift(frames)
    assert np.isfinite([pose.limbs for pose in poses]).all()
    between = (poses[1].shift + poses[3].shift) / 2
    assert np.allclose(poses[2].shift, between, atol=1e-6)


@pytest.mark.parametrize("frames", [[], [Frame((), 64, 64)]])
def test_a_recording_of_nobody_is_refused(frames):
    with pytest.raises(InputError, match="shows nobody"):
        lift(frames)


def test_the_command_writes_what_the_trainer_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative folder, and a list that does not depend on it
    numbers = ["--persons", "2", "--clips", "3", "--frames", "3", "--size", "64", "--first", "50"]
    assert main(["set", *numbers, "--workers", "1"]) == 0
    assert (tmp_path / "set" / "video_rec_path.txt").read_text() == "rec/00001\nrec/00002\nrec/00003\n"
    folder = tmp_path / "set" / "rec" / "00003"
    assert sorted(path.name for path in folder.iterdir()) == ["faces", "images", "person.json", "poses"]
    assert json.loads((folder / "person.json").read_text()) == {"person": 50, "motion": 52}
    clip = make_clip(50, 52, 3, 64)
    made = (("images", clip.frames), ("poses", clip.skeletons()), ("faces", clip.face_masks))
    for name, pictures in made:
        files = sorted((folder / name).iterdir())
        assert [path.name for path in files] == [f"frame_{number}.png" for number in range(3)]
        assert all(
            np.array_equal(Image.open(path), picture) for path, picture in zip(files, pictures, strict=True)
        )
    report = Report()
    bucket = Bucket("rec", 64, 64, "video_rec_path.txt")
    (videos,) = find_videos(Data(tmp_path / "set", (bucket,), num_frames=2), report)
    assert [len(video) for video in videos] == [3, 3, 3] and not report.dropped and not report.skipped


def test_the_command_shares_the_work_among_processes(tmp_path):
    """As a program of its own: a worker process cannot import what stands in the program's `__main__`."""
    options = ["--persons", "3", "--frames", "1", "--size", "64", "--workers", "2", "--name", "val"]
    command = [sys.executable, "-m", "stableanimator_core.puppets", str(tmp_path), *options]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "val").iterdir()) == ["00001", "00002", "00003"]
    assert len(list(tmp_path.rglob("frame_0.png"))) == 9


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--persons", "0"), "persons: is 0"),
        (("--clips", "0"), "clips: is 0"),
        (("--frames", "0"), "frames: is 0"),
        (("--first", str(HELD_OUT - 3)), f"reach over {HELD_OUT}"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused_before_anything_is_written(options, told, tmp_path, capsys):
    assert main([str(tmp_path / "set"), *options]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_nobody_who_is_trained_on_is_judged(tmp_path):
    assert HELD_OUT == HELD_OUT_FROM
    plan = StorePlan()
    people = [plan.seeds_of(number)[0] for number in range(plan.num_clips)]
    trained = set(people[: plan.persons * plan.clips])
    assert max(trained) < HELD_OUT and min(set(people) - trained) >= HELD_OUT
    assert len(set(people) - trained) == plan.held_out
    assert max(set(people)) < evaluation.FIRST_TEST
    default = inspect.signature(evaluation.evaluation_clips).parameters["first"].default
    assert default == evaluation.FIRST_TEST >= HELD_OUT
    with pytest.raises(InputError, match="held-out numbers begin"):
        write_set(tmp_path, 9, 9, 1, 64, first=HELD_OUT - 8)
    faces = [draw_person(seed) for seed in (0, HELD_OUT, evaluation.FIRST_TEST)]
    assert len({(face.skin, face.hair, face.head) for face in faces}) == 3
