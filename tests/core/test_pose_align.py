"""Alignment: the official fit exactly, the others by what they promise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stableanimator_core.conformance.cases.poses import pose_align
from stableanimator_core.conformance.golden import open_golden
from stableanimator_core.errors import InputError, NoPersonError
from stableanimator_core.pose.align import MODES, AlignOptions, align
from stableanimator_core.pose.draw import draw_clip
from stableanimator_core.pose.fit_people import frame_ranges
from stableanimator_core.pose.keypoints import PART_SIZES, Frame, load_pose_json
from stableanimator_core.pose.limbs import BONES, bone_lengths
from stableanimator_core.pose.overlay import contact_sheet, overlay
from stableanimator_core.pose.select import select_person

GOLDENS = Path(__file__).parents[1] / "goldens"
MOTION = Path(__file__).parents[2] / "assets" / "motion"
FITTING = [mode for mode in MODES if mode != "none"]


@pytest.fixture(scope="module")
def clip():
    return load_pose_json(MOTION / "jumping_jacks_1768x994.json")


@pytest.fixture(scope="module")
def square():
    return load_pose_json(MOTION / "jumping_jacks_512x512.json")


def pixels(frame):
    return frame.people[0].body * frame.size


def turned(frame, size, scale, degrees, shift):
    """The frame on another canvas: scaled, turned and shifted in pixels."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def move(points):
        return (scale * (points * frame.size) @ rotation.T + shift) / size

    return Frame(tuple(one.moved(move) for one in frame.people), *size)


def test_official_alignment_equals_the_official_results():
    rows = list(pose_align(open_golden(GOLDENS, "pose_align")))
    assert len(rows) == 34
    assert [row.name for row in rows if not row.ok] == []


@pytest.mark.parametrize("mode", MODES)
def test_real_motion_goes_from_file_to_picture_in_every_mode(clip, square, mode):
    chosen = select_person(clip, "tracked")
    result = align(chosen.frames, square[0], AlignOptions(mode=mode))
    assert len(result.frames) == len(clip) and result.frames[0].size.tolist() == [512, 512]
    pictures = draw_clip(result.frames[::12], 256, 256)
    assert (pictures.reshape(4, -1).max(axis=1) > 100).all()
    assert np.isfinite(result.misfit.share) and result.misfit.per_frame.shape == (48,)


@pytest.mark.parametrize("mode", ["robust", "similarity"])
def test_a_known_scale_and_shift_is_recovered_on_a_canvas_of_another_aspect(clip, mode):
    size = (600, 900)
    reference = turned(clip[7], size, 1.4, 0, (20, -35))
    result = align([clip[7]], reference, AlignOptions(mode=mode))
    np.testing.assert_allclose(pixels(result.frames[0]), pixels(reference), atol=1e-6)
    np.testing.assert_allclose(result.scale, [1.4 * 1768 / 600, 1.4 * 994 / 900])
    assert result.misfit.level == "FIT OK" and result.misfit.share < 1e-9


def test_similarity_recovers_a_rotation_too(clip):
    reference = turned(clip[7], (600, 900), 0.8, 25, (300, -10))
    result = align([clip[7]], reference, AlignOptions(mode="similarity"))
    np.testing.assert_allclose(pixels(result.frames[0]), pixels(reference), atol=1e-6)
    assert result.rotation == pytest.approx(25)
    assert any("tilted by 25 degrees" in message for message in result.messages)


def test_robust_fit_ignores_five_wrong_joints_where_least_squares_does_not(clip):
    reference = turned(clip[7], (1768, 994), 1.2, 0, (-100, 30))
    body = clip[7].people[0].body.copy()
    body[[0, 2, 9, 13, 16]] = np.random.default_rng(0).uniform(0, 1, (5, 2))
    spoiled = Frame((replace(clip[7].people[0], body=body),), 1768, 994)
    robust = align([spoiled], reference, AlignOptions(mode="robust"))
    official = align([spoiled], reference, AlignOptions(mode="official"))
    assert robust.scale == pytest.approx([1.2, 1.2], rel=1e-6)
    assert abs(official.scale[0] - 1.2) > 0.05


def test_doubtful_joints_weigh_less_in_a_weighted_fit(clip):
    reference = turned(clip[7], (1768, 994), 1.0, 0, (0, 0))
    body, score = clip[7].people[0].body.copy(), clip[7].people[0].body_score.copy()
    body[10] += 0.2
    errors = []
    for trust in (1.0, 0.31):
        score[10] = trust
        spoiled = Frame((replace(clip[7].people[0], body=body, body_score=score),), 1768, 994)
        found = align([spoiled], reference, AlignOptions(mode="similarity"))
        errors.append(np.abs(found.scale - 1).max())
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("mode", MODES)
def test_strength_zero_leaves_the_clip_and_half_strength_goes_half_way(square, mode):
    reference = turned(square[3], (512, 512), 0.7, 0, (40, 60))
    still = align(square, reference, AlignOptions(mode=mode, strength=0.0)).frames
    for before, after in zip(square, still, strict=True):
        for name in PART_SIZES:
            for old, new in zip(before.people[0].part(name), after.people[0].part(name), strict=True):
                np.testing.assert_allclose(new, old, atol=1e-12)
    half = align(square, reference, AlignOptions(mode=mode, strength=0.5)).frames
    full = align(square, reference, AlignOptions(mode=mode)).frames
    for a, b, c in zip(square, half, full, strict=True):
        np.testing.assert_allclose(b.people[0].body, (a.people[0].body + c.people[0].body) / 2, atol=1e-12)


def test_unaligned_clips_keep_their_aspect_on_another_canvas(clip):
    frame = align(clip[:1], Frame((), 400, 800), AlignOptions(mode="none")).frames[0]
    before, after = np.ptp(pixels(clip[0]), axis=0), np.ptp(pixels(frame), axis=0)
    np.testing.assert_allclose(after / before, [400 / 1768] * 2)


@pytest.mark.parametrize("mode", ["robust", "similarity", "limbs"])
def test_figures_keep_their_shape_across_aspects_except_in_official_mode(clip, square, mode):
    def shape(frames):
        sides = np.stack([np.ptp(pixels(frame), axis=0) for frame in frames])
        return sides[:, 0] / sides[:, 1]

    wanted = shape(clip)
    assert np.abs(shape(align(clip, square[3], AlignOptions(mode=mode)).frames) / wanted - 1).max() < 0.12
    official = shape(align(clip, square[3], AlignOptions(mode="official")).frames)
    assert np.abs(official / wanted - 1).min() > 0.4


def stretched_arms(frame, factor):
    """The same person with longer or shorter arms."""
    body = frame.people[0].body.copy()
    for inner, outer in ((2, (3, 4)), (5, (6, 7))):
        body[list(outer)] = body[inner] + factor * (body[list(outer)] - body[inner])
    return Frame((replace(frame.people[0], body=body),), frame.width, frame.height)


def test_limbs_mode_takes_over_the_references_arms_left_and_right_alike(square):
    reference = stretched_arms(square[10], 0.85)
    result = align([square[10]], reference, AlignOptions(mode="limbs"))
    np.testing.assert_allclose(pixels(result.frames[0]), pixels(reference), atol=0.02 * 512)
    ours = bone_lengths([result.frames[0].people[0]], result.frames[0].size)
    wanted = bone_lengths([reference.people[0]], reference.size)
    for name in ("upper arms", "forearms", "thighs", "shins"):
        assert ours[name] == pytest.approx(wanted[name], rel=0.02)


def test_limb_ratios_never_pass_the_cap_and_hands_stay_on_their_wrists(square):
    result = align(square, stretched_arms(square[10], 3.0), AlignOptions(mode="limbs", limb_cap=1.2))
    robust = align(square, stretched_arms(square[10], 3.0), AlignOptions(mode="robust"))
    for frame, before in zip(result.frames, robust.frames, strict=True):
        for bones in BONES.values():
            for parent, child in bones:
                new = np.linalg.norm(pixels(frame)[child] - pixels(frame)[parent])
                old = np.linalg.norm(pixels(before)[child] - pixels(before)[parent])
                assert old / 1.2001 <= new <= old * 1.2001
        hand, wrist = frame.people[0].left_hand, frame.people[0].body[7]
        if frame.people[0].left_hand_score.any():
            old_gap = before.people[0].left_hand[0] - before.people[0].body[7]
            assert np.linalg.norm(hand[0] - wrist) <= 1.3 * np.linalg.norm(old_gap) + 1e-9
    assert any("upper arms" in message and "held at 120%" in message for message in result.messages)


def test_limbs_that_are_not_seen_clearly_keep_their_length(square):
    reference = stretched_arms(square[10], 0.7)
    score = reference.people[0].body_score.copy()
    score[[3, 4, 6, 7]] = 0.2
    hidden = Frame((replace(reference.people[0], body_score=score),), 512, 512)
    result = align([square[10]], hidden, AlignOptions(mode="limbs"))
    plain = align([square[10]], hidden, AlignOptions(mode="robust"))
    ours = bone_lengths([result.frames[0].people[0]], np.array([512.0, 512]))
    before = bone_lengths([plain.frames[0].people[0]], np.array([512.0, 512]))
    assert ours["upper arms"] == pytest.approx(before["upper arms"])
    assert "upper arms: not seen clearly in both, length kept" in result.messages


@pytest.mark.parametrize("mode", FITTING)
def test_first_frame_lock_puts_the_first_neck_on_the_references(clip, square, mode):
    locked = align(clip, square[20], AlignOptions(mode=mode, lock_first_frame=True)).frames
    np.testing.assert_allclose(locked[0].people[0].body[1], square[20].people[0].body[1], atol=1e-12)


def test_the_fit_looks_only_at_the_chosen_frames(square):
    moved = [turned(frame, (512, 512), 0.5, 0, (0, 0)) for frame in square[:10]] + list(square[10:20])
    result = align(moved, square[12], AlignOptions(first_frame=10, last_frame=19))
    assert result.fit_frames == tuple(range(10, 20))
    assert result.scale == pytest.approx([1, 1], abs=0.05)
    for first, last in ((5, 3), (20, None), (-1, None)):
        with pytest.raises(InputError, match="frames to fit on"):
            align(moved, square[12], AlignOptions(first_frame=first, last_frame=last))


def test_frames_with_several_people_stay_out_of_the_fit_but_are_moved(square):
    other = turned(square[0], (512, 512), 0.3, 0, (5, 5)).people[0]
    mixed = [Frame((other, frame.people[0]), 512, 512) if n % 2 else frame for n, frame in enumerate(square)]
    for mode in ("official", "robust"):
        result = align(mixed, square[3], AlignOptions(mode=mode))
        alone = align(square[::2], square[3], AlignOptions(mode=mode))
        assert result.fit_frames == tuple(range(0, 48, 2))
        np.testing.assert_allclose(result.scale, alone.scale)
        assert all(len(frame.people) == 2 for frame in result.frames[1::2])


def test_only_frames_with_several_people_stop_the_official_fit_by_name(square):
    crowd = [Frame(frame.people * 2, 512, 512) for frame in square[:4]] + [Frame((), 512, 512)]
    with pytest.raises(NoPersonError, match="several people in 0-3; nobody in 4"):
        align(crowd, square[3], AlignOptions(mode="official"))
    two = Frame(square[3].people * 2, 512, 512)
    assert "the reference shows 2 people; the first is used" in align(square, two).messages
    assert "largest" in align(crowd, square[3], AlignOptions(mode="robust")).messages[0]


@pytest.mark.parametrize("mode", FITTING)
def test_people_without_usable_joints_are_named(square, mode):
    options = AlignOptions(mode=mode)
    unseen = replace(square[0].people[0], body=np.zeros((18, 2)), body_score=np.zeros(18))
    with pytest.raises(NoPersonError, match="reference picture: shows nobody"):
        align(square, Frame((), 512, 512), options)
    with pytest.raises(NoPersonError, match="shows only 0 of the 14 joints"):
        align(square, Frame((unseen,), 512, 512), options)
    with pytest.raises(NoPersonError, match="nobody in 2.*joints in 0-1"):
        align([Frame((unseen,), 512, 512)] * 2 + [Frame((), 512, 512)], square[0], options)


def test_misfit_says_in_words_what_is_wrong(square):
    reference = square[10]
    none = AlignOptions(mode="none")
    far = align([turned(square[10], (512, 512), 1, 0, (100, 0))], reference, none).misfit
    assert far.level == "BAD" and "too far right" in far.text
    long_arms = align([stretched_arms(square[10], 1.4)], reference, none).misfit
    assert long_arms.text.startswith("CHECK: arms 40 % too long") or "arms 40 % too long" in long_arms.text
    small = align([turned(square[10], (512, 512), 0.5, 0, (128, 100))], reference, none).misfit
    assert small.level == "BAD" and "figure 50 % too small" in small.text
    mirrored = Frame((reference.people[0].moved(lambda p: p * [-1, 1] + [1, 0]),), 512, 512)
    assert "mirrored" in align([mirrored], reference, none).misfit.text
    assert align([], Frame((), 64, 64), none).misfit.level == "NOT JUDGED"


def test_overlay_shows_skeleton_and_verdict_and_leaves_the_photo_alone(clip, square):
    photo = np.full((512, 512, 3), 100, dtype=np.uint8)
    result = align(clip, square[3])
    picture = overlay(photo, result.frames[3], result.misfit, square[3])
    assert (photo == 100).all() and picture.shape == photo.shape and picture.dtype == np.uint8
    assert picture[2, 500].tolist() == [22, 125, 60]  # the green badge
    x, y = (square[3].people[0].body[1] * 512).astype(int)
    assert picture[y - 12 : y + 12, x - 12 : x + 12].max() > 150
    assert contact_sheet(photo, result.frames, result.misfit, square[3]).shape == (512, 3 * 512, 3)


def test_settings_are_checked():
    for wrong in ({"mode": "magic"}, {"strength": 1.5}, {"strength": float("nan")}, {"limb_cap": 0.5}):
        with pytest.raises(InputError):
            AlignOptions(**wrong)


def test_frame_numbers_are_written_as_ranges():
    assert frame_ranges([4, 0, 1, 2, 9]) == "0-2, 4, 9"


def test_a_clip_whose_canvas_changes_is_refused(square, clip):
    with pytest.raises(InputError, match="canvas size"):
        align([square[0], clip[0]], square[3])
