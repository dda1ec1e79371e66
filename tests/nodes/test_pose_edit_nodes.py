"""Pose Select and Pose Align inside ComfyUI, on the shipped motions."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

MOTION = Path(__file__).parents[2] / "assets" / "motion"


@pytest.fixture(scope="module")
def jumping() -> list[dict]:
    return json.loads((MOTION / "jumping_jacks_512x512.json").read_text())


def moved(frame: dict, x: float, y: float = 0.0, scale: float = 1.0) -> dict:
    """The frame with everybody in it scaled and shifted, pixels."""
    frame = copy.deepcopy(frame)
    for person in frame["people"]:
        for key, values in person.items():
            if values:
                points = np.array(values).reshape(-1, 3)
                points[:, :2] = np.where(points[:, 2:] > 0, points[:, :2] * scale + [x, y], 0)
                person[key] = points.ravel().tolist()
    return frame


def two_people(frame: dict) -> dict:
    """The frame with a smaller second person beside."""
    other = moved(frame, 5, 5, 0.4)
    return {**frame, "people": [other["people"][0], frame["people"][0]]}


def body(frame: dict) -> np.ndarray:
    return np.array(frame["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)[:, :2]


def empty(frame: dict) -> dict:
    return {**frame, "people": []}


def select(pack, poses, how="tracked", index=0, fill_gaps=0, smooth=(0.0, 0.0, 0.0)):
    return pack.PoseSelect.execute(poses, how, index, fill_gaps, *smooth).args


def align(
    pack, poses, reference, mode="robust", strength=1.0, lock=False, first=0, last=-1, cap=1.3, image=None
):
    return pack.PoseAlign.execute(poses, reference, mode, strength, lock, first, last, cap, image).args


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    texts: list[str] = []
    for file in ("nodes.pose_edit", "nodes.pose_align"):
        monkeypatch.setattr(pack.module(file), "say", lambda node, text: texts.append(text))
    return texts


# Pose Select


@pytest.mark.parametrize(("how", "index"), [("largest", 0), ("tracked", 0), ("index", 1)])
def test_one_of_two_people_is_kept(pack, jumping, how, index):
    poses, report = select(pack, [two_people(frame) for frame in jumping[:6]], how, index)
    assert all(len(frame["people"]) == 1 for frame in poses)
    assert np.allclose(body(poses[3]), body(jumping[3]), atol=0.01)
    assert report.startswith("6 frames")


def test_all_keeps_everybody(pack, jumping):
    poses, _ = select(pack, [two_people(frame) for frame in jumping[:3]], "all")
    assert [len(frame["people"]) for frame in poses] == [2, 2, 2]


def test_gaps_are_filled_only_when_asked_for_and_named_in_the_report(pack, jumping, said):
    frames = [empty(frame) if number in (3, 4) else frame for number, frame in enumerate(jumping[:8])]
    poses, report = select(pack, frames)
    assert [len(frame["people"]) for frame in poses] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert "still empty: frames 3-4" in report and "filled: none" in report
    assert said and "frames 3-4" in said[0]

    poses, report = select(pack, frames, fill_gaps=2)
    assert all(frame["people"] for frame in poses)
    assert (
        "not found in: frames 3-4" in report
        and "filled: frames 3-4" in report
        and "still empty: none" in report
    )
    assert np.abs(body(poses[3]) - body(jumping[3])).max() < 15


def test_smoothing_calms_the_part_it_is_asked_to(pack, jumping):
    frames = [moved(frame, 3 * (-1) ** number) for number, frame in enumerate(jumping[:12])]
    plain, _ = select(pack, frames)
    calm, _ = select(pack, frames, smooth=(2.0, 0.0, 0.0))
    trembling = [np.abs(np.diff([body(f)[1, 0] for f in clip], n=2)).mean() for clip in (plain, calm)]
    assert trembling[1] < 0.4 * trembling[0]
    assert calm[5]["people"][0]["face_keypoints_2d"] == plain[5]["people"][0]["face_keypoints_2d"]


def test_doubtful_frames_are_listed_by_number(pack, jumping):
    frames = copy.deepcopy(jumping[:5])
    values = np.array(frames[2]["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
    values[:, 2] = 0.2
    frames[2]["people"][0]["pose_keypoints_2d"] = values.ravel().tolist()
    assert "low confidence: frame 2" in select(pack, frames, "largest")[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: [empty(frame) for frame in f], "nobody in any of the 2 frames"),
        (lambda f: [], "no frames"),
        (
            lambda f: [
                {"people": [{"pose_keypoints_2d": [1.0] * 51}], "canvas_width": 9, "canvas_height": 9}
            ],
            "17-joint",
        ),
        (lambda f: "[{", "not complete JSON"),
        (lambda f: 5, "not frames of keypoints"),
    ],
)
def test_poses_that_cannot_be_used_are_refused_in_words(pack, jumping, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        select(pack, change(jumping[:2]))
    assert str(caught.value).startswith("Pose Select - ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"how": "best"}, "one of"), ({"index": 7}, "number 7"), ({"smooth": (-1.0, 0, 0)}, "body")],
)
def test_impossible_choices_are_refused(pack, jumping, settings, words):
    with pytest.raises(ValueError, match=words):
        select(pack, jumping[:3], **settings)


def test_the_input_is_never_changed(pack, jumping):
    frames = copy.deepcopy(jumping[:4])
    select(pack, frames, fill_gaps=3, smooth=(1.0, 1.0, 1.0))
    align(pack, frames, frames[:1], "limbs")
    assert frames == jumping[:4]


# Pose Align


@pytest.mark.parametrize("mode", ["robust", "similarity", "limbs", "official"])
def test_a_clip_lands_on_the_person_of_the_photo(pack, jumping, mode, said):
    height = 1200 if mode == "official" else 900  # it keeps the figure's shape only if the aspects agree
    canvas = {"canvas_width": 1200, "canvas_height": height}
    wide = [{**moved(frame, 300, 90, 1.4), **canvas} for frame in jumping[:10]]
    poses, overlay, misfit, report = align(pack, wide, jumping[:1], mode, first=0, last=0)
    assert (poses[0]["canvas_width"], poses[0]["canvas_height"]) == (512, 512)
    assert np.abs(body(poses[0]) - body(jumping[0])).max() < 3
    assert misfit < 0.06 and report.startswith("FIT OK") and not said
    assert overlay.shape == (1, 512, 3 * 512, 3)


def test_strength_zero_only_places_the_clip(pack, jumping):
    far = [moved(frame, 120, 0, 0.5) for frame in jumping[:5]]
    poses, _, misfit, report = align(pack, far, jumping[:1], strength=0.0)
    assert np.allclose(body(poses[2]), body(far[2]), atol=0.01)
    assert misfit > 0.15 and report.startswith("BAD")


def test_a_bad_fit_is_said_aloud_and_painted_red(pack, jumping, said):
    far = [moved(frame, 120, 0, 0.5) for frame in jumping[:5]]
    image = torch.ones(1, 256, 256, 3)
    _, overlay, _, report = align(pack, far, jumping[:1], "none", image=image)
    assert said == [report.splitlines()[0]] and said[0].startswith("BAD")
    badge = overlay[0, 2, 2]
    assert badge[0] > 0.6 and badge[1] < 0.2


def test_the_photo_is_seen_under_the_skeleton_and_a_large_one_is_shown_smaller(pack, jumping):
    image = torch.zeros(1, 1024, 1024, 3)
    image[..., 2] = 1.0
    _, overlay, _, _ = align(pack, jumping[:3], jumping[:1], image=image)
    assert overlay.shape == (1, 768, 3 * 768, 3)
    assert (overlay[0, 700, :, 2] > 0.5).float().mean() > 0.5


def test_the_first_frame_lock_puts_neck_on_neck(pack, jumping):
    poses, *_ = align(pack, jumping[10:20], jumping[:1], lock=True)
    assert np.allclose(body(poses[0])[1], body(jumping[0])[1], atol=0.01)


def test_the_range_of_the_fit_decides_what_counts(pack, jumping):
    clip = [*jumping[:5], *(moved(frame, 150, 0, 0.6) for frame in jumping[5:10])]
    first = body(align(pack, clip, jumping[:1], first=0, last=4)[0][0])
    second = body(align(pack, clip, jumping[:1], first=5, last=9)[0][0])
    assert np.abs(first - body(jumping[0])).max() < 12
    assert np.abs(first - second).max() > 60
    assert "frames 5-9" in align(pack, clip, jumping[:1], first=5, last=9)[3]


def test_nobody_to_compare_gives_not_a_number_and_says_so(pack, jumping):
    _, _, misfit, report = align(pack, jumping[:2], [empty(jumping[0])], "none")
    assert math.isnan(misfit) and report.startswith("NOT JUDGED")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, r: (p, [empty(r[0])]), "shows nobody"),
        (lambda p, r: (p, r * 2), "2 frames"),
        (lambda p, r: ([empty(f) for f in p], r), "nobody in 0-2"),
        (lambda p, r: (p, {"animals": []}), "animal"),
    ],
)
def test_a_clip_or_reference_without_usable_joints_is_refused_with_its_frames(pack, jumping, change, words):
    poses, reference = change(jumping[:3], jumping[:1])
    with pytest.raises(ValueError, match=words) as caught:
        align(pack, poses, reference)
    assert str(caught.value).startswith("Pose Align - ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "magic"}, "mode"),
        ({"strength": 2.0}, "strength"),
        ({"cap": 9.0}, "limb_cap"),
        ({"first": 9}, "frames 0 to 2"),
        ({"image": torch.zeros(1, 300, 512, 3)}, "512 x 300"),
        ({"image": torch.full((1, 512, 512, 3), float("nan"))}, "NaN"),
    ],
)
def test_impossible_settings_are_refused(pack, jumping, settings, words):
    with pytest.raises(ValueError, match=words):
        align(pack, jumping[:3], jumping[:1], **settings)


def test_select_align_and_draw_work_as_a_chain(pack, jumping):
    chosen, _ = select(pack, [two_people(frame) for frame in jumping[:4]])
    aligned, *_ = align(pack, chosen, jumping[5:6])
    (pictures,) = pack.PoseDraw.execute(aligned, 128, 128, "contain", True, True, True).args
    assert pictures.shape == (4, 128, 128, 3) and all(picture.max() > 0.3 for picture in pictures)
