"""Puppets: fixed by their seeds, and everything that is told about them is where it is drawn."""

import numpy as np
import pytest

from stableanimator_core.errors import InputError
from stableanimator_core.pose.people import JOINT
from stableanimator_core.puppets import clip as clips
from stableanimator_core.puppets import make_clip
from stableanimator_core.puppets.body import place
from stableanimator_core.puppets.demo import rest
from stableanimator_core.puppets.figure import FOREARM, HAND, WRIST
from stableanimator_core.puppets.look import draw_person
from stableanimator_core.puppets.motion import Pose, generate, unit

SIZE = 128
MAGENTA = np.array([255, 0, 255], np.uint8)
LIMBS = (("r_shoulder", "r_elbow"), ("r_elbow", "r_wrist"), ("l_shoulder", "l_elbow"), ("l_elbow", "l_wrist"))
LEGS = (("r_hip", "r_knee"), ("r_knee", "r_ankle"), ("l_hip", "l_knee"), ("l_knee", "l_ankle"))


def turned(yaw: float, pitch: float = 0.0) -> Pose:
    """Standing still, with the head turned."""
    pose = rest()
    return Pose(pose.limbs, pose.body, np.array([yaw, pitch, 0.0]), pose.shift, 0.0, 0.0)


@pytest.fixture
def empty_scene(monkeypatch):
    """Puppets before a colour that nobody wears, so that the figure can be told from what is behind it."""

    def scene(_rng, size):
        return np.full((size, size, 3), MAGENTA)

    monkeypatch.setattr(clips, "draw_scene", scene)


def figure_of(frame) -> np.ndarray:
    """[H W] where somebody is drawn."""
    return (np.abs(frame.astype(int) - MAGENTA) > 60).any(axis=-1)


def joints(frame) -> tuple[np.ndarray, np.ndarray]:
    """[18 2] pixels, and [18] which are seen."""
    return frame.people[0].body * frame.size, frame.people[0].visible


def directions(frame, limbs=(*LIMBS, *LEGS)):
    """Unit directions of the limbs in the picture; NaN where an end is not seen."""
    points, seen = joints(frame)
    points = np.where(seen[:, None], points, np.nan)
    return unit(np.array([points[JOINT[b]] - points[JOINT[a]] for a, b in limbs]))


def test_the_same_seeds_give_the_same_pixels():
    one, other = make_clip(3, 5, 2, 64), make_clip(3, 5, 2, 64)
    assert one.frames.dtype == np.uint8 and one.frames.shape == (2, 64, 64, 3)
    for name in ("frames", "face_masks"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert np.array_equal(one.skeletons(), other.skeletons())
    assert not np.array_equal(one.frames[0], one.frames[1])


def test_another_person_looks_different_and_moves_alike():
    one, other = (make_clip(person, 11, 3, 64, framing="full") for person in (1, 2))
    assert draw_person(1) != draw_person(2)
    assert np.abs(one.frames.astype(int) - other.frames).mean() > 10
    both = np.array([[directions(frame) for frame in clip.poses] for clip in (one, other)])
    seen = np.isfinite(both).all(axis=(0, 3))
    assert seen.mean() > 0.7
    assert np.abs(both[0] - both[1])[seen].max() < 1e-9
    elsewhere = np.array([directions(frame) for frame in make_clip(1, 12, 3, 64, framing="full").poses])
    assert np.nanmax(np.abs(elsewhere - both[0])) > 0.3


def test_people_differ_in_all_that_makes_a_face():
    people = [draw_person(seed) for seed in range(60)]
    assert len({(p.skin, p.hair, p.eyes, p.head, p.nose, p.mouth) for p in people}) == 60
    for name, kinds in (("hair_style", 9), ("beard", 5), ("glasses", 4)):
        assert len({getattr(person, name) for person in people}) == kinds


@pytest.mark.parametrize("framing", ["half", "knees", "full"])
def test_key_points_lie_on_the_figure(empty_scene, framing):
    checked = 0
    for seed in range(3):
        clip = make_clip(seed, seed + 20, 3, SIZE, framing=framing)
        for picture, frame in zip(clip.frames, clip.poses, strict=True):
            drawn = figure_of(picture)
            for part in ("body", "face"):
                points, scores = frame.people[0].part(part)
                if part == "face" and not scores.any():
                    continue
                pixels = np.clip((points[scores > 0] * SIZE).astype(int), 0, SIZE - 1)
                inside = drawn[pixels[:, 1], pixels[:, 0]]
                assert inside.mean() > (0.999 if part == "body" else 0.97), (seed, part)
                checked += len(inside)
    assert checked > 300


def test_an_arm_is_drawn_around_its_joints(empty_scene):
    """Arms stretched out: the forearm's cross-section has the skeleton's line in its middle, and its own width."""
    limbs = np.array([[1.0, 0, 0], [1, 0, 0], [0.1, 1, 0], [0, 1, 0]] * 2)
    pose = Pose(unit(limbs), np.zeros(3), np.zeros(3), np.zeros(2), 0.0, 0.0)
    for seed in range(4):
        clip = make_clip(seed, 0, 1, SIZE, poses=[pose], framing="full")
        drawn, (points, seen) = figure_of(clip.frames[0]), joints(clip.poses[0])
        scale = (points[JOINT["l_elbow"], 0] - points[JOINT["l_shoulder"], 0]) / draw_person(seed).arm
        for side in ("r", "l"):
            elbow, wrist = points[JOINT[f"{side}_elbow"]], points[JOINT[f"{side}_wrist"]]
            assert seen[JOINT[f"{side}_wrist"]]
            middle = (elbow + wrist) / 2
            rows = np.flatnonzero(drawn[:, int(middle[0])])
            assert abs(rows.min() + rows.max() + 1 - 2 * middle[1]) < 2.5
            width = (FOREARM + WRIST) * scale * draw_person(seed).girth
            assert width - 1 < len(rows) < 1.4 * width + 3  # its outline, and a sleeve
            columns = np.flatnonzero(drawn[int(wrist[1])])
            end = columns.max() + 1 if side == "l" else columns.min()
            assert abs(abs(end - wrist[0]) - 1.8 * HAND * scale) < 2.5  # the hand, and no more


def test_face_boxes_hold_the_face_points_and_masks_are_the_boxes():
    shown = 0
    for seed in range(6):
        clip = make_clip(seed, seed + 40, 2, SIZE)
        for frame, box, mask in zip(clip.poses, clip.face_boxes, clip.face_masks, strict=True):
            points, scores = frame.people[0].part("face")
            if np.isnan(box).any():
                assert not mask.any()
                continue
            shown += 1
            rows, columns = np.nonzero(mask)
            drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert drawn == tuple(np.round(box).astype(int))
            assert len(rows) == (drawn[2] - drawn[0]) * (drawn[3] - drawn[1]) and set(
                mask[rows, columns]
            ) == {255}
            inner = points[17:][scores[17:] > 0] * SIZE  # brows, nose, eyes, mouth
            assert len(inner) > 30
            assert (inner > box[:2] - 1).all() and (inner < box[2:] + 1).all()
            jaw = points[:17][scores[:17] > 0] * SIZE
            assert (jaw > box[:2] - 2).all() and (jaw < box[2:] + 2).all()
            assert box[3] - box[1] < 1.6 * np.ptp(points[scores > 0, 1]) * SIZE  # and not much else
    assert shown > 8


def test_eyes_and_mouth_are_painted_at_their_key_points():
    seeds = [seed for seed in range(3000) if bare_faced(draw_person(seed))]
    assert len(seeds) >= 2
    for seed in seeds:
        person = draw_person(seed)
        clip = make_clip(seed, 1, 1, 256, poses=[turned(0)], framing="half")
        (points, _), face = joints(clip.poses[0]), clip.poses[0].people[0].face * 256
        for name, ring in (("r_eye", face[36:42]), ("l_eye", face[42:48])):
            eye = points[JOINT[name]]
            assert np.abs(ring.mean(axis=0) - eye).max() < 1.5
            assert away_from(clip.frames[0], eye, person.skin) > 60  # iris or pupil
        mouth = face[48:60].mean(axis=0)
        assert away_from(clip.frames[0], mouth, person.lips) < away_from(clip.frames[0], mouth, person.skin)
        chin = (mouth + face[8]) / 2
        assert away_from(clip.frames[0], chin, person.lips) > away_from(clip.frames[0], chin, person.skin)
        _, top, _, bottom = clip.face_boxes[0]
        assert 0 < bottom - face[8, 1] < 0.12 * (bottom - top)


def bare_faced(person) -> bool:
    """No glasses, no beard, and a nose that ends above the mouth."""
    nose_ends = 0.02 + 0.72 * person.nose[0] + person.nose[1]
    return (
        person.glasses == person.beard == "none"
        and nose_ends < -0.5 * np.sin(person.mouth_height) - person.mouth[1]
    )


def away_from(picture, place, colour) -> float:
    """How far the picture at [2] pixels is from a colour."""
    x, y = place.astype(int)
    return float(np.abs(picture[y, x] - 255 * np.array(colour)).sum())


@pytest.mark.parametrize(("yaw", "hidden"), [(0.9, "l_ear"), (-0.9, "r_ear"), (0.0, None)])
def test_a_turned_head_hides_the_far_ear_and_moves_the_face(yaw, hidden):
    for seed in range(3):
        points, seen = joints(make_clip(seed, 1, 1, 64, poses=[turned(yaw)], framing="half").poses[0])
        assert [name for name in ("r_ear", "l_ear") if not seen[JOINT[name]]] == ([hidden] if hidden else [])
        straight, _ = joints(make_clip(seed, 1, 1, 64, poses=[turned(0)], framing="half").poses[0])
        for name in ("nose", "r_eye", "l_eye"):
            moved = points[JOINT[name], 0] - straight[JOINT[name], 0]
            assert np.sign(moved) == np.sign(yaw) and (abs(moved) > 2 or not yaw)
        assert np.allclose(points[2:14][seen[2:14]], straight[2:14][seen[2:14]])  # the body stands still


def test_a_face_that_looks_down_is_lower_and_one_turned_away_is_not_told():
    level, down = (
        joints(make_clip(0, 1, 1, 64, poses=[turned(0, pitch)], framing="half").poses[0])[0]
        for pitch in (0, 0.3)
    )
    assert down[JOINT["nose"], 1] > level[JOINT["nose"], 1] + 1
    away = make_clip(0, 1, 1, 64, poses=[turned(1.4)], framing="half")
    assert np.isnan(away.face_boxes).all() and not away.face_masks.any()
    assert not away.poses[0].people[0].face_score.any()


def test_limbs_keep_their_length_in_every_generated_pose():
    for seed in range(5):
        person = draw_person(seed)
        for pose in generate(np.random.default_rng(seed), 20, energy=1.0):
            body = place(person, pose)
            lengths = np.linalg.norm(np.diff(np.concatenate([body.arms, body.legs]), axis=1), axis=-1)
            expected = [[person.arm, 0.95 * person.arm]] * 2 + [[person.leg, 0.95 * person.leg]] * 2
            assert np.allclose(lengths, expected)
            assert np.linalg.norm(body.neck - body.pelvis) == pytest.approx(person.torso)


def test_motions_move_and_seldom_jump():
    for seed in range(5):
        poses = generate(np.random.default_rng(seed), 30, energy=0.8)
        steps = np.linalg.norm(np.diff([pose.limbs for pose in poses], axis=0), axis=-1)
        assert steps.mean() > 0.02 and np.percentile(steps, 99) < 1.0  # 60 degrees


def test_skeletons_are_drawn_on_black_at_the_key_points():
    clip = make_clip(4, 9, 2, SIZE, framing="full")
    for picture, frame in zip(clip.skeletons(), clip.poses, strict=True):
        points, seen = joints(frame)
        bright = picture.max(axis=-1)
        assert picture.shape == (SIZE, SIZE, 3) and (bright < 10).mean() > 0.6
        pixels = np.clip(points[seen].astype(int), 1, SIZE - 2)
        assert min(bright[y - 1 : y + 2, x - 1 : x + 2].max() for x, y in pixels) > 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"person_seed": -1}, "person_seed: is -1"),
        ({"motion_seed": -2}, "motion_seed: is -2"),
        ({"num_frames": 0}, "num_frames: is 0"),
        ({"size": 8}, "size: is 8"),
        ({"poses": []}, "poses: are none"),
        ({"framing": "portrait"}, "framing: is 'portrait'.*half, knees, full"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, told):
    with pytest.raises(InputError, match=told):
        make_clip(**{"person_seed": 0, "motion_seed": 0, "num_frames": 1, "size": 64, **changes})
