"""POSE_KEYPOINT in all its variants, and what is refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from stableanimator_core.errors import InputError
from stableanimator_core.pose import keypoints
from stableanimator_core.pose.keypoints import (
    PART_SIZES,
    load_pose_json,
    parse_pose_keypoints,
    save_pose_json,
    to_pose_keypoints,
)

MOTION = Path(__file__).parents[2] / "assets" / "motion"
CLIPS = sorted(path.name for path in MOTION.glob("*.json"))


@pytest.fixture
def written():
    return json.loads((MOTION / "jumping_jacks_512x512.json").read_text())[:3]


def same(one, other, tolerance=1e-12):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.width, a.height, len(a.people)) == (b.width, b.height, len(b.people))
        for p, q in zip(a.people, b.people, strict=True):
            for name in PART_SIZES:
                for x, y in zip(p.part(name), q.part(name), strict=True):
                    np.testing.assert_allclose(x, y, atol=tolerance)


@pytest.mark.parametrize("name", CLIPS)
def test_real_motion_survives_reading_and_writing_unchanged(name):
    written = json.loads((MOTION / name).read_text())
    assert to_pose_keypoints(parse_pose_keypoints(written)) == written


def test_coordinates_become_fractions_of_the_canvas(written):
    person = parse_pose_keypoints(written)[0].people[0]
    x, y, score = written[0]["people"][0]["pose_keypoints_2d"][:3]
    np.testing.assert_allclose([*person.body[0], person.body_score[0]], [x / 512, y / 512, score])


def test_a_single_frame_a_json_string_and_bytes_mean_the_same(written):
    expected = parse_pose_keypoints(written[:1])
    same(parse_pose_keypoints(written[0]), expected)
    same(parse_pose_keypoints(json.dumps(written[:1])), expected)
    same(parse_pose_keypoints(json.dumps(written[:1]).encode()), expected)


def test_fractions_and_pixels_mean_the_same(written):
    expected = parse_pose_keypoints(written)
    for frame in written:
        for person in frame["people"]:
            for key, values in person.items():
                if values:
                    person[key] = [v if i % 3 == 2 else v / 512 for i, v in enumerate(values)]
    same(parse_pose_keypoints(written), expected)


def test_missing_parts_are_absent_and_pupils_are_kept_but_not_required(written):
    person = written[0]["people"][0]
    del person["hand_left_keypoints_2d"]
    person["hand_right_keypoints_2d"] = []
    person["face_keypoints_2d"] = person["face_keypoints_2d"][: 3 * 68]
    read = parse_pose_keypoints(written)
    assert not read[0].people[0].left_hand_score.any() and not read[0].people[0].right_hand_score.any()
    assert not read[0].people[0].pupils_score.any() and read[1].people[0].pupils_score.all()
    back = to_pose_keypoints(read)
    assert back[0]["people"][0]["hand_left_keypoints_2d"] is None
    assert len(back[0]["people"][0]["face_keypoints_2d"]) == 3 * 68
    assert len(back[1]["people"][0]["face_keypoints_2d"]) == 3 * 70


def test_bodies_of_25_joints_and_bodies_with_feet_are_mapped(written):
    flat = written[0]["people"][0]["pose_keypoints_2d"]
    rows = [flat[i : i + 3] for i in range(0, 54, 3)]
    body_25 = rows[:8] + [[1.0, 2.0, 1.0]] + rows[8:] + [[3.0, 4.0, 1.0]] * 6
    expected = parse_pose_keypoints(written)
    written[0]["people"][0]["pose_keypoints_2d"] = [v for row in body_25 for v in row]
    same(parse_pose_keypoints(written), expected)
    written[0]["people"][0]["pose_keypoints_2d"] = flat + [3.0, 4.0, 1.0] * 6
    same(parse_pose_keypoints(written), expected)


def test_people_without_any_point_are_nobody(written):
    written[1]["people"] = [{"pose_keypoints_2d": [0] * 54, "face_keypoints_2d": None}]
    written[2]["people"] = None
    read = parse_pose_keypoints(written)
    assert [len(frame.people) for frame in read] == [1, 0, 0]


def test_doubtful_points_keep_their_place_and_score(written):
    written[0]["people"][0]["pose_keypoints_2d"][:3] = [100.0, 50.0, 0.05]
    written[0]["people"][0]["pose_keypoints_2d"][3:6] = [100.0, 50.0, 1.5]
    assert to_pose_keypoints(parse_pose_keypoints(written)) == written
    whole = to_pose_keypoints(parse_pose_keypoints(written), whole_scores=True)
    assert whole[0]["people"][0]["pose_keypoints_2d"][:6] == [0, 0, 0, 100.0, 50.0, 1.0]


def test_a_file_without_canvas_size_needs_one_from_the_user(written):
    expected = parse_pose_keypoints(written)
    bare = [{"people": frame["people"]} for frame in written]
    with pytest.raises(InputError, match="canvas size.*[Gg]ive the width and height"):
        parse_pose_keypoints(bare)
    same(parse_pose_keypoints(bare, canvas=(512, 512)), expected)


BROKEN = {
    "NaN": (lambda p: p["face_keypoints_2d"].__setitem__(4, float("nan")), "frame 1, face_keypoints_2d.*nan"),
    "endless": (
        lambda p: p["pose_keypoints_2d"].__setitem__(0, float("inf")),
        "frame 1, pose_keypoints_2d.*inf",
    ),
    "giant integer": (lambda p: p["pose_keypoints_2d"].__setitem__(0, 10**400), "frame 1.*endless"),
    "text": (lambda p: p["pose_keypoints_2d"].__setitem__(0, "12"), "frame 1.*not a number"),
    "short hand": (
        lambda p: p.update(hand_left_keypoints_2d=[1.0] * 60),
        "hand_left_keypoints_2d: has 60 numbers",
    ),
    "animal": (lambda p: p.update(pose_keypoints_2d=[1.0] * 51), "frame 1.*animals"),
    "part is a word": (lambda p: p.update(pose_keypoints_2d="none"), "frame 1.*is a str"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_values_are_refused_by_frame_and_part(written, how):
    change, message = BROKEN[how]
    change(written[1]["people"][0])
    with pytest.raises(InputError, match=message):
        parse_pose_keypoints(written)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('[{"people": [', "not complete JSON"),
        ("[" * 100_000, "not complete JSON"),
        ([], "no frames"),
        (7, "not frames"),
        ([3], "frame 0.*not a frame"),
        ([{"canvas_width": 3}], 'no "people"'),
        ([{"version": "ap10k", "animals": [[0.0] * 51]}], "animal poses"),
        ([{"people": "x"}], '"people" is a str'),
        ([{"people": [3]}], "is a int"),
        ([{"people": [], "canvas_width": "wide", "canvas_height": 5}], "\"canvas_width\" is 'wide'"),
    ],
)
def test_other_forms_are_refused_in_words(data, message):
    with pytest.raises(InputError, match=message):
        parse_pose_keypoints(data)


def test_sizes_are_bounded(written, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="has 65 people, the limit is 64"):
        parse_pose_keypoints([{**written[0], "people": written[0]["people"] * 65}])
    monkeypatch.setattr(keypoints, "MAX_FRAMES", 2)
    with pytest.raises(InputError, match="has 3 frames, the limit is 2"):
        parse_pose_keypoints(written)
    monkeypatch.setattr(keypoints, "MAX_JSON_MIB", 1)
    (tmp_path / "big.json").write_text(" " * (2 << 20))
    with pytest.raises(InputError, match="big.json: is 2 MiB, the limit is 1 MiB"):
        load_pose_json(tmp_path / "big.json")


def test_files_are_written_whole_or_not_at_all(written, tmp_path, monkeypatch):
    frames = parse_pose_keypoints(written)
    save_pose_json(tmp_path / "poses.json", frames)
    same(load_pose_json(tmp_path / "poses.json"), frames, 1e-6)
    (tmp_path / "plain").touch()
    assert (tmp_path / "poses.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()

    def full_disk(*_):
        raise OSError("disk full")

    monkeypatch.setattr(keypoints.os, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        save_pose_json(tmp_path / "other.json", frames)
    assert [path.name for path in tmp_path.iterdir()] == ["poses.json"]
    with pytest.raises(InputError, match="other.json: cannot be read"):
        load_pose_json(tmp_path / "other.json")


def test_parsing_leaves_its_input_alone(written):
    before = copy.deepcopy(written)
    parse_pose_keypoints(written)
    assert written == before
