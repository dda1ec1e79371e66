"""Skeleton pictures: exact, fast, bounded."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_core.conformance.cases.poses import pose_draw
from stableanimator_core.conformance.golden import open_golden
from stableanimator_core.errors import InputError
from stableanimator_core.pose.draw import draw_clip, draw_frame
from stableanimator_core.pose.keypoints import Frame, Person, load_pose_json

GOLDENS = Path(__file__).parents[1] / "goldens"
MOTION = Path(__file__).parents[2] / "assets" / "motion"


@pytest.fixture(scope="module")
def clip():
    return load_pose_json(MOTION / "jumping_jacks_512x512.json")


def test_pictures_equal_the_official_ones():
    rows = list(pose_draw(open_golden(GOLDENS, "pose_draw")))
    assert len(rows) == 36
    assert [row.name for row in rows if not row.ok] == []


def test_a_clip_is_drawn_like_its_frames_and_twice_the_same(clip):
    together = draw_clip(clip[:9], 256, 192)
    assert together.dtype == np.uint8 and together.shape == (9, 256, 192, 3)
    for picture, frame in zip(together, clip[:9], strict=True):
        np.testing.assert_array_equal(picture, draw_frame(frame, 256, 192))
    np.testing.assert_array_equal(draw_clip(clip[:9], 256, 192, workers=1), together)


def test_nothing_of_one_frame_stays_for_the_next(clip):
    nobody = Frame((), 512, 512)
    assert draw_clip([clip[0], nobody, clip[1], nobody], 128, 128, workers=1)[[1, 3]].max() == 0


def test_body_hands_and_face_can_be_left_out(clip):
    whole = draw_frame(clip[5], 512, 512)
    assert draw_frame(clip[5], 512, 512, body=False, hands=False, face=False).max() == 0
    for part in ("body", "hands", "face"):
        assert (draw_frame(clip[5], 512, 512, **{part: False}) != whole).any(), part
    face_only = draw_frame(clip[5], 512, 512, body=False, hands=False)
    assert (face_only[..., 0] == face_only[..., 1]).all() and face_only.any()  # face points are grey


def test_first_limb_is_red_and_hand_dots_are_blue():
    person = Person(body=np.tile([[0.3, 0.5]], (18, 1)), body_score=np.zeros(18))
    body, score = person.body.copy(), person.body_score.copy()
    body[2], score[1:3] = (0.7, 0.5), 1.0
    picture = draw_frame(Frame((Person(body=body, body_score=score),), 512, 512), 512, 512)
    assert picture[256, 256].tolist() == [153, 0, 0]
    hand = Person(left_hand=np.full((21, 2), 0.5), left_hand_score=np.ones(21))
    assert draw_frame(Frame((hand,), 512, 512), 512, 512).reshape(-1, 3).max(axis=0).tolist() == [0, 0, 255]


def test_weak_joints_are_left_out_and_far_away_points_do_no_harm(clip):
    person = clip[0].people[0]
    weak = replace(person, body_score=np.full(18, 0.3))
    assert draw_frame(Frame((weak,), 512, 512), 256, 256, hands=False, face=False).max() == 0
    far = person.moved(lambda points: points * 1e6)
    draw_frame(Frame((far,), 512, 512), 256, 256)


def test_progress_counts_up_and_an_exception_from_it_ends_the_drawing_soon(clip):
    seen = []
    draw_clip(clip[:5], 64, 64, on_frame=seen.append)
    assert seen == [1, 2, 3, 4, 5]

    def cancel(done):
        raise InterruptedError

    start = time.perf_counter()
    draw_clip(clip[:6], 256, 256, workers=1)
    six_frames = time.perf_counter() - start
    start = time.perf_counter()
    with pytest.raises(InterruptedError):
        draw_clip(clip * 20, 256, 256, on_frame=cancel, workers=1)  # 960 frames
    assert time.perf_counter() - start < 0.3 * six_frames / 6 * 960


@pytest.mark.parametrize("size", [(8, 512), (512, 9000), (0, 0)])
def test_impossible_sizes_are_refused(clip, size):
    with pytest.raises(InputError, match="skeleton size"):
        draw_clip(clip[:1], *size)


def limb(score: float) -> Frame:
    """One upright limb, from neck to right shoulder, whose ends have this score."""
    body, scores = np.zeros((18, 2)), np.zeros(18)
    body[[1, 2]], scores[[1, 2]] = [(0.5, 0.25), (0.5, 0.75)], score
    return Frame((Person(body=body, body_score=scores),), 512, 512)


@pytest.mark.parametrize("score", [0.31, 1.0])
def test_animate_anyones_limbs_are_thick_and_keep_their_colour_whatever_the_score(score):
    picture = draw_clip([limb(score)], 512, 512, style="Animate Anyone")[0]
    assert picture[256, 256].tolist() == [153, 0, 0]
    assert np.count_nonzero(picture[256, :, 0]) == 9  # 4 pixels on each side of the middle


def test_stableanimators_limbs_are_thin_and_fade():
    thin, faint = (draw_clip([limb(score)], 512, 512)[0] for score in (1.0, 0.5))
    assert 1 <= np.count_nonzero(thin[256, :, 0]) <= 3
    assert faint[256].max() < thin[256].max() // 2


@pytest.mark.parametrize("score", [0.0, 0.3])
def test_animate_anyone_leaves_out_what_is_not_seen_hands_and_faces_too(score):
    person = replace(
        limb(score).people[0], left_hand=np.full((21, 2), 0.5), left_hand_score=np.full(21, score)
    )
    person = person.with_part("face", np.full((68, 2), 0.5), np.full(68, score))
    assert draw_clip([Frame((person,), 512, 512)], 512, 512, style="Animate Anyone").max() == 0


def test_two_styles_can_follow_each_other(clip):
    alone = draw_clip(clip[:2], 256, 256, workers=1)
    draw_clip(clip[:2], 256, 256, style="Animate Anyone", workers=1)
    np.testing.assert_array_equal(draw_clip(clip[:2], 256, 256, workers=1), alone)
