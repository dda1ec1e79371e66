"""Choosing and following people."""

from pathlib import Path

import numpy as np
import pytest

from stableanimator_core.errors import InputError, NoPersonError
from stableanimator_core.pose.keypoints import Frame, load_pose_json
from stableanimator_core.pose.select import select_person, track_people

MOTION = Path(__file__).parents[2] / "assets" / "motion"
NOBODY = Frame((), 512, 512)


@pytest.fixture(scope="module")
def clip():
    return load_pose_json(MOTION / "jumping_jacks_512x512.json")


def at(person, x, scale=0.4):
    """The person, smaller, with the neck at height 0.4 and `x`."""
    neck = person.body[1]
    return person.moved(lambda points: (points - neck) * scale + [x, 0.4])


def crossing(clip, rng, away=()):
    """Two people walk through each other, in changing order; also who is where."""
    frames, order = [], []
    for n in range(40):
        walkers = [at(clip[n].people[0], 0.1 + 0.02 * n), at(clip[47 - n].people[0], 0.9 - 0.02 * n, 0.36)]
        places = [place for place in rng.permutation(2) if (n, place) not in away]
        frames.append(Frame(tuple(walkers[place] for place in places), 512, 512))
        order.append(places)
    return frames, order


def test_two_people_who_cross_stay_themselves(clip):
    for seed in range(5):
        frames, order = crossing(clip, np.random.default_rng(seed))
        tracks = track_people(frames)
        assert len(tracks) == 2
        for track in tracks:
            assert len(track) == 40
            assert len({order[n][place] for n, place in track.items()}) == 1


def test_a_short_absence_does_not_end_a_track_and_is_reported(clip):
    away = {(n, 0) for n in (12, 13, 14, 15)}
    frames, order = crossing(clip, np.random.default_rng(3), away)
    for index in (0, 1):
        chosen = select_person(frames, "tracked", index)
        mine = {order[n][track] for n, track in track_people(frames)[index].items()}
        assert len(mine) == 1
        assert chosen.missing == ([12, 13, 14, 15] if mine == {0} else [])
        assert [len(frame.people) for frame in chosen.frames] == [
            0 if n in chosen.missing else 1 for n in range(40)
        ]


def test_a_jump_across_the_picture_is_another_person(clip):
    frames = [Frame((at(clip[n].people[0], 0.1 if n < 10 else 0.9, 0.2),), 512, 512) for n in range(20)]
    assert [sorted(track) for track in track_people(frames)] == [[*range(10)], [*range(10, 20)]]


def test_largest_central_and_index_decide_frame_by_frame(clip):
    person = clip[0].people[0]
    small, large = at(person, 0.5, 0.2), at(person, 0.15, 0.6)
    frames = [Frame((small, large), 512, 512), NOBODY, Frame((large,), 512, 512)]
    largest = select_person(frames, "largest")
    assert largest.frames[0].people == (large,) and largest.missing == [1]
    assert select_person(frames, "central").frames[0].people == (small,)
    second = select_person(frames, "index", 1)
    assert second.frames[0].people == (large,) and second.missing == [1, 2]
    everybody = select_person(frames, "all")
    assert [len(frame.people) for frame in everybody.frames] == [2, 0, 1] and everybody.missing == [1]


def test_the_most_present_person_comes_first(clip):
    person = clip[0].people[0]
    frames = [
        Frame((at(person, 0.2, 0.5), at(person, 0.8, 0.2)) if n < 3 else (at(person, 0.8, 0.2),), 512, 512)
        for n in range(30)
    ]
    assert len(track_people(frames)[0]) == 30
    assert select_person(frames).missing == []


def test_nobody_and_impossible_choices_are_refused_in_words(clip):
    with pytest.raises(NoPersonError, match="nobody in any of the 3 frames"):
        select_person([NOBODY] * 3)
    with pytest.raises(NoPersonError, match="show 1 people who can be followed, number 1"):
        select_person(clip, "tracked", 1)
    with pytest.raises(NoPersonError, match="at most 1 people"):
        select_person(clip, "index", 4)
    for how, index, frames in (("best", 0, clip), ("index", -1, clip), ("largest", 0, [])):
        with pytest.raises(InputError):
            select_person(frames, how, index)
