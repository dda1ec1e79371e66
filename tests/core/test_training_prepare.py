"""Videos become a training set: layout, pictures, masks, skeletons, and what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prepare_videos import (
    SIDE,
    blurred,
    dropped,
    open_models,
    other_scene,
    scene,
    small,
    two_people,
    write_models,
    write_video,
)

from stableanimator_core.pose.draw import draw_frame
from stableanimator_core.pose.keypoints import load_pose_json
from stableanimator_core.pose.people import Frame, Person
from stableanimator_core.training import prepare_checks as checks
from stableanimator_core.training import videos
from stableanimator_core.training.frames import draw_clip
from stableanimator_core.training.prepare import Networks, prepare
from stableanimator_core.training.prepare_cuts import CutDetector
from stableanimator_core.training.prepare_settings import Settings
from stableanimator_core.training.prepare_source import Source, read_frames, upright


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def networks(models) -> Networks:
    return open_models(models)


@pytest.fixture(scope="module")
def made(networks, tmp_path_factory) -> Path:
    """A set made of one good video of 18 frames with a face in all but frames 3 and 4."""
    folder = tmp_path_factory.mktemp("made")
    frames = [scene(face=number not in (3, 4)) for number in range(18)]
    prepare([write_video(folder / "videos/dance.mkv", frames)], folder / "set", networks)
    return folder / "set"


def test_a_video_becomes_the_official_layout(made):
    clip = made / "rec/00001"
    names = {f"frame_{number}.png" for number in range(18)}
    for part in ("images", "poses", "faces"):
        assert {path.name for path in (clip / part).iterdir()} == names
    assert (made / "video_rec_path.txt").read_text() == f"{clip.as_posix()}\n"
    assert (made / "video_vec_path.txt").read_text() == ""
    assert not [path for path in made.iterdir() if path.name == ".prepare_work"]


def test_pictures_are_the_frames_at_the_sets_size(made):
    with Image.open(made / "rec/00001/images/frame_7.png") as picture:
        wanted = Image.fromarray(scene()).resize((512, 512), Image.Resampling.BICUBIC)
        assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_masks_are_the_detectors_boxes_filled_with_255_in_one_channel(made, networks):
    with Image.open(made / "rec/00001/images/frame_0.png") as picture:
        faces = networks.faces.find_faces(np.asarray(picture))
    wanted = np.zeros((512, 512), dtype=np.uint8)
    for face in faces:
        left, top, right, bottom = (int(value) for value in face.corners)
        wanted[top : bottom + 1, left : right + 1] = 255
    with Image.open(made / "rec/00001/faces/frame_0.png") as mask:
        assert mask.mode == "L" and 0 < wanted.mean() < 60
        assert np.array_equal(np.asarray(mask), wanted)


def test_a_frame_without_a_face_gets_an_all_white_mask_and_is_listed(made):
    for number in (3, 4):
        with Image.open(made / f"rec/00001/faces/frame_{number}.png") as mask:
            assert (np.asarray(mask) == 255).all()
    assert json.loads((made / "rec/00001/clip.json").read_text())["frames_without_face"] == [3, 4]
    assert "2 without a face" in (made / "report.txt").read_text()


def test_skeletons_can_be_drawn_again_from_the_kept_poses(made):
    poses = load_pose_json(made / "rec/00001/poses.json")
    assert len(poses) == 18 and (poses[0].width, poses[0].height) == (512, 512)
    with Image.open(made / "rec/00001/poses/frame_5.png") as drawn:
        pixels = np.asarray(drawn)
    assert pixels.any() and np.array_equal(pixels, draw_frame(poses[5], 512, 512))


def test_the_set_can_be_sampled_for_training(made):
    clip = Path((made / "video_rec_path.txt").read_text().splitlines()[0])
    drawn = draw_clip(len(list((clip / "images").iterdir())), torch.Generator().manual_seed(0))
    for part, mode in (("images", "RGB"), ("poses", "RGB"), ("faces", "L")):
        for number in (*drawn.frames, drawn.reference):
            with Image.open(clip / part / f"frame_{number}.png") as picture:
                assert (picture.size, picture.mode) == ((512, 512), mode)


def test_the_trainer_finds_every_frame_complete(made):
    report = videos.Report()
    found = videos.read_video(made / "rec/00001", report, check_pixels=True)
    assert found is not None and len(found) == 18 and (report.skipped, report.dropped) == ({}, {})


def test_a_portrait_video_goes_into_the_other_set(networks, tmp_path):
    video = write_video(tmp_path / "tall.mp4", [scene(size=(512, 288))] * 3, codec="mpeg4")
    report = prepare(
        [video], tmp_path / "set", networks, small(min_joints=0, size="set"), relative_lists=True
    )
    assert report.clips == {"rec": 0, "vec": 1}
    assert (tmp_path / "set/video_vec_path.txt").read_text() == "vec/00001\n"
    for part in ("images", "poses", "faces"):
        with Image.open(tmp_path / f"set/vec/00001/{part}/frame_0.png") as picture:
            assert picture.size == (576, 1024)


@pytest.mark.parametrize(
    ("height", "width", "changes", "scaled", "final"),
    [
        (720, 1280, {}, (512, 910), (512, 512)),
        (1280, 720, {}, (1024, 576), (1024, 576)),
        (1000, 700, {}, (1024, 717), (1024, 576)),
        (720, 1280, {"fit": "stretch"}, (512, 512), (512, 512)),
        (720, 1280, {"size": "original"}, (720, 1280), (720, 720)),
        (720, 1280, {"size": "original", "image_set": "vec"}, (720, 1280), (720, 405)),
        (720, 1280, {"size": "original", "fit": "stretch"}, (720, 1280), (720, 1280)),
    ],
)
def test_frames_are_scaled_and_cut_to_the_sets_aspect(height, width, changes, scaled, final):
    placement = checks.place(height, width, Settings(**changes))
    assert (placement.scaled, placement.final) == (scaled, final)


def test_the_cut_follows_the_person_and_poses_follow_the_cut(networks, tmp_path):
    video = write_video(tmp_path / "wide.mkv", [scene(size=(SIDE, 2 * SIDE))] * 3)
    prepare([video], tmp_path / "set", networks, small())
    (whole,) = networks.dwpose.detect_people(scene(size=(SIDE, 2 * SIDE)))[:1]
    kept = load_pose_json(tmp_path / "set/rec/00001/poses.json")[0].people[0]
    moved = kept.body * SIDE - whole.body * [2 * SIDE, SIDE]  # pixels, by joint
    assert np.abs(moved - moved[0]).max() < 0.01 and abs(moved[0, 1]) < 0.01
    with Image.open(tmp_path / "set/rec/00001/images/frame_0.png") as picture:
        column = -round(moved[0, 0])
        wanted = scene(size=(SIDE, 2 * SIDE))[:, column : column + SIDE]
        assert np.array_equal(np.asarray(picture), wanted)
    left, _, right, _ = kept.box()
    assert abs((left + right) / 2 - 0.5) < 0.01 or column in (0, SIDE)


@pytest.mark.parametrize(
    ("bad", "changes", "reason"),
    [
        (lambda: scene(person=False), {}, checks.NO_PERSON),
        (two_people, {}, checks.SEVERAL_PEOPLE),
        (lambda: scene(face=False), {"no_face": "drop"}, checks.FACE_ABSENT),
        (blurred, {"min_sharpness": 20.0}, checks.BLURRED),
    ],
)
def test_a_bad_frame_ends_a_clip_and_is_reported(networks, tmp_path, bad, changes, reason):
    frames = [scene()] * 3 + [bad()] * 2 + [scene()] * 4
    report = prepare([write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(**changes))
    assert dropped(tmp_path / "set") == {reason: [[3, 4]]}
    (entry,) = report.videos.values()
    spans = [(clip["frames"], clip["first"], clip["last"]) for clip in entry.clips]
    assert spans == [(3, 0, 2), (4, 5, 8)]
    text = (tmp_path / "set/report.txt").read_text()
    assert f"dropped, {reason}: 2 frames (3-4)" in text and "7 kept" in text


@pytest.mark.parametrize(
    ("frames", "changes", "reason"),
    [
        ([scene()] * 3, {"min_face": 0.2}, checks.FACE_TOO_SMALL),
        ([scene()] * 2, {}, checks.TOO_SHORT),
        ([scene()] + [scene(face=False)] * 2, {}, checks.FACE_ABSENT),
        ([scene(size=(640, 320))] * 3, {"image_set": "rec", "min_joints": 17}, checks.JOINTS_MISSING),
    ],
)
def test_a_clip_that_is_not_good_enough_is_dropped_whole(networks, tmp_path, frames, changes, reason):
    video = write_video(tmp_path / "a.mkv", frames)
    report = prepare([video], tmp_path / "set", networks, small(**changes))
    assert dropped(tmp_path / "set") == {reason: [[0, len(frames) - 1]]}
    assert report.clips == {"rec": 0, "vec": 0} and report.dropped == {reason: len(frames)}


def test_few_bad_frames_can_be_left_out_without_a_new_clip(networks, tmp_path):
    frames = [scene()] * 3 + [scene(person=False)] * 2 + [scene()] * 3
    prepare([write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(bridge=2))
    about = json.loads((tmp_path / "set/rec/00001/clip.json").read_text())
    assert about["source_frames"] == [0, 1, 2, 5, 6, 7]
    assert sorted(path.name for path in (tmp_path / "set/rec").iterdir()) == ["00001"]


def test_a_second_person_is_allowed_where_one_is_chosen(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [two_people()] * 3)
    prepare([video], tmp_path / "set", networks, small(person="largest"))
    poses = load_pose_json(tmp_path / "set/rec/00001/poses.json")
    assert [len(frame.people) for frame in poses] == [1, 1, 1]


def test_a_cut_divides_a_video(networks, tmp_path):
    frames = [scene(number) for number in range(4)] + [other_scene()] * 4
    report = prepare(
        [write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(cut_threshold=0.08)
    )
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 3), (4, 7)]
    assert entry.cuts == [4] and "cut before 4" in report.as_text()


def test_cuts_are_told_from_motion_and_from_a_shaken_camera():
    def seen(frames):
        detector = CutDetector()
        return [number for number, frame in enumerate(frames) if detector.is_cut(frame)]

    moving = []
    for step in range(12):
        image = scene()
        image[100:250, 20 * step : 20 * step + 80] = 230
        moving.append(image)
    bars = np.uint8(np.arange(SIDE) // 40 % 2 * 200)
    shaken = [np.repeat(np.roll(bars, 16 * k)[None, :, None], SIDE, 0).repeat(3, 2) for k in range(12)]
    brighter = [np.clip(scene().astype(int) + 3 * step, 0, 255).astype(np.uint8) for step in range(12)]
    assert seen(moving) == [] and seen(brighter) == []
    assert seen(shaken)[1:] == []  # only its begin can be taken for a cut
    assert seen(moving + [other_scene()] * 3) == [12]


def test_long_takes_are_divided(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 8)
    report = prepare([video], tmp_path / "set", networks, small(max_frames=3))
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 2), (3, 5)]
    assert dropped(tmp_path / "set") == {checks.TOO_SHORT: [[6, 7]]}


def test_a_video_is_thinned_by_its_own_times(tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 12, rate=24)
    assert [frame.number for frame in read_frames(Source(video), fps=8)] == [0, 3, 6, 9]
    assert [frame.number for frame in read_frames(Source(video), fps=8, start=5)] == [6, 9]
    assert len(list(read_frames(Source(video), fps=60))) == 12


def test_a_folder_of_pictures_is_a_video_in_the_order_of_numbers(networks, tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(11):
        Image.fromarray(scene(number)).save(folder / f"f{number}.png")
    (folder / "f4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    report = prepare([tmp_path], tmp_path / "set", networks, small())
    assert dropped(tmp_path / "set") == {checks.UNREADABLE: [[4, 4]]}
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 3), (5, 10)]
    with Image.open(tmp_path / "set/rec/00002/images/frame_5.png") as last:  # f10, not f9
        assert np.array_equal(np.asarray(last), scene(10))


def test_a_bad_video_is_listed_and_the_next_one_is_done(networks, tmp_path):
    videos = tmp_path / "videos"
    good = write_video(videos / "2.mkv", [scene()] * 3)
    (videos / "1.mp4").write_bytes(b"not a video at all")
    whole = write_video(videos / "3.mkv", [scene(seed) for seed in range(8)]).read_bytes()
    (videos / "3.mkv").write_bytes(whole[: len(whole) // 2])
    (videos / "4.mkv").write_bytes(b"")
    report = prepare([videos], tmp_path / "set", networks, small())
    kept = {Path(key).name: len(entry.clips) for key, entry in report.videos.items()}
    assert kept == {"1.mp4": 0, "2.mkv": 1, "3.mkv": 1, "4.mkv": 0}
    problems = {Path(key).name: entry.problem for key, entry in report.videos.items()}
    assert "cannot be opened" in problems["1.mp4"] and "cannot be opened" in problems["4.mkv"]
    assert problems["2.mkv"] == "" and good.exists()
    assert problems["1.mp4"] in (tmp_path / "set/report.txt").read_text()


def test_a_phones_rotation_is_counter_clockwise():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(upright(image, 90)[:, 0], image[0, ::-1])
    assert np.array_equal(upright(image, -90), upright(image, 270))
    assert upright(image, 0) is not None and np.array_equal(upright(image, 0), image)


def test_a_person_at_the_edge_lacks_the_joints_outside():
    body = np.column_stack([np.linspace(0.5, 1.5, 18), np.full(18, 0.5)])  # nine joints lie inside
    frame = Frame((Person(body=body, body_score=np.ones(18)),), 512, 512)
    assert checks.joints_problem(frame, Settings(min_joints=9)) == ""
    assert checks.joints_problem(frame, Settings(min_joints=10)) == checks.JOINTS_MISSING
