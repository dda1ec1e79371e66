"""Filling gaps and smoothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_core.errors import InputError
from stableanimator_core.pose.keypoints import PART_SIZES, Frame, Person, load_pose_json
from stableanimator_core.pose.smooth import SmoothOptions, low_confidence_frames, repair, smoothed

MOTION = Path(__file__).parents[2] / "assets" / "motion"


@pytest.fixture(scope="module")
def clip():
    return load_pose_json(MOTION / "jumping_jacks_512x512.json")


def steady(clip, num_frames=30):
    """One person who glides through the picture at constant speed."""
    person = clip[0].people[0]
    return [
        Frame((person.moved(lambda p, n=n: p + [0.004 * n, 0.001 * n]),), 512, 512) for n in range(num_frames)
    ]


def bodies(frames):
    return np.stack([frame.people[0].body for frame in frames])


def test_it_is_off_by_default(clip):
    result = repair(clip)
    assert all(a.people == b.people for a, b in zip(clip, result.frames, strict=True))
    assert result.filled == [] and result.doubtful == []


def test_steady_motion_passes_unchanged_to_the_very_ends(clip):
    frames = steady(clip)
    result = repair(frames, SmoothOptions(body=3, hands=3, face=3))
    for before, after in zip(frames, result.frames, strict=True):
        for name in PART_SIZES:
            for old, new in zip(before.people[0].part(name), after.people[0].part(name), strict=True):
                np.testing.assert_allclose(new, old, atol=1e-6)


def test_accelerated_motion_passes_unchanged():
    time = np.arange(40.0)[:, None, None] / 40
    points = np.concatenate([time**2, 1 - time + 3 * time**2], axis=2)
    np.testing.assert_allclose(smoothed(points, np.ones((40, 1)), 2.5), points, atol=1e-6)


def test_jitter_shrinks_and_only_in_the_chosen_part(clip):
    rng = np.random.default_rng(0)
    frames = steady(clip, 60)
    shaken = []
    for frame in frames:
        person = frame.people[0]
        noise = {
            name: person.part(name)[0] + rng.normal(0, 0.004, (size, 2)) for name, size in PART_SIZES.items()
        }
        absent = {name: person.part(name)[1] == 0 for name in PART_SIZES}
        parts = {name: np.where(absent[name][:, None], 0, noise[name]) for name in PART_SIZES}
        shaken.append(Frame((replace(person, **parts),), 512, 512))
    result = repair(shaken, SmoothOptions(body=3)).frames
    assert np.std(bodies(result) - bodies(frames)) < 0.5 * np.std(bodies(shaken) - bodies(frames))
    assert all((a.people[0].face == b.people[0].face).all() for a, b in zip(shaken, result, strict=True))


def test_doubtful_points_follow_sure_ones(clip):
    frames = steady(clip)
    body, score = frames[15].people[0].body.copy(), frames[15].people[0].body_score.copy()
    body[4] += 0.1
    errors = []
    for trust in (1.0, 0.05):
        score[4] = trust
        spoiled = [*frames]
        spoiled[15] = Frame((replace(frames[15].people[0], body=body, body_score=score),), 512, 512)
        result = repair(spoiled, SmoothOptions(body=2)).frames
        errors.append(np.abs(bodies(result) - bodies(frames))[:, 4].max())
    assert errors[1] < 0.2 * errors[0]


def test_short_gaps_are_filled_on_the_line_and_long_ones_are_not(clip):
    frames = steady(clip)
    holed = [Frame((), 512, 512) if n in (5, 6, 7) or 15 <= n < 21 else f for n, f in enumerate(frames)]
    result = repair(holed, SmoothOptions(fill_gaps=3))
    assert result.filled == [5, 6, 7] and result.doubtful == [*range(15, 21)]
    for n in (5, 6, 7):
        np.testing.assert_allclose(result.frames[n].people[0].body, frames[n].people[0].body, atol=1e-9)
        np.testing.assert_allclose(result.frames[n].people[0].face, frames[n].people[0].face, atol=1e-9)


def test_a_filled_hand_stays_on_its_moving_wrist(clip):
    frames = [frame for frame in clip if frame.people[0].left_hand_score.all()]
    hidden = [*frames]
    for n in range(10, 14):
        person = frames[n].people[0]
        hidden[n] = Frame(
            (replace(person, left_hand=np.zeros((21, 2)), left_hand_score=np.zeros(21)),), 512, 512
        )
    result = repair(hidden, SmoothOptions(fill_gaps=4))
    assert result.filled == [10, 11, 12, 13] or set(result.filled) >= {10, 11, 12, 13}
    for n in range(10, 14):
        person = result.frames[n].people[0]
        assert np.linalg.norm(person.left_hand[0] - person.body[7]) < 0.03
        assert (person.left_hand_score > 0.3).all()


def test_two_people_are_repaired_apart(clip):
    left = steady(clip)
    pairs = [
        Frame(
            (f.people[0], f.people[0].moved(lambda p: p * 0.5 + [0.5, 0.1]))[:: 1 if n % 2 else -1], 512, 512
        )
        for n, f in enumerate(left)
    ]
    result = repair(pairs, SmoothOptions(body=3)).frames
    for before, after in zip(pairs, result, strict=True):
        for one, other in zip(before.people, after.people, strict=True):
            np.testing.assert_allclose(other.body, one.body, atol=1e-6)


def test_frames_with_nobody_or_unsure_bodies_are_listed(clip):
    weak = Frame((replace(clip[3].people[0], body_score=np.full(18, 0.2)),), 512, 512)
    frames = [clip[0], Frame((), 512, 512), weak, Frame((weak.people[0], clip[3].people[0]), 512, 512)]
    assert low_confidence_frames(frames) == [1, 2]


def test_absent_points_stay_absent_and_short_clips_pass(clip):
    one = [Frame((Person(body=clip[0].people[0].body, body_score=np.ones(18)),), 512, 512)]
    result = repair(one, SmoothOptions(fill_gaps=5, body=4, hands=4, face=4)).frames[0].people[0]
    assert not result.face.any() and not result.left_hand.any()
    np.testing.assert_allclose(result.body, one[0].people[0].body, atol=1e-9)


def test_settings_are_checked():
    for wrong in ({"body": -1}, {"face": float("nan")}, {"fill_gaps": -2}):
        with pytest.raises(InputError):
            SmoothOptions(**wrong)
