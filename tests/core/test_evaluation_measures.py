"""Measures against other implementations, clips and heights against what they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_models import BOX, FRAMES, SIZE, made_up_clip, noise, person

from stableanimator_core.errors import InputError, NoPersonError
from stableanimator_core.evaluation import clips, pictures
from stableanimator_core.evaluation.body_height import body_height, height_in_heads
from stableanimator_core.evaluation.likeness import csim, identities_of
from stableanimator_core.evaluation.pose_error import pose_error
from stableanimator_core.models.vae import build_vae
from stableanimator_core.pose.people import Frame, Person
from stableanimator_core.puppets.clip import _camera
from stableanimator_core.puppets.look import draw_outfit, draw_person
from stableanimator_core.puppets.scene import draw_scene


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    truth = noise(0, FRAMES, 40, 36)
    return (truth * 0.7 + noise(1, FRAMES, 40, 36) * 0.3).astype(np.uint8), truth


def test_psnr_and_ssim_are_those_of_scikit_image(pair):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    frames, truth = pair
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    expected = [
        structural_similarity(a, b, data_range=255, **gaussian) for a, b in zip(frames, truth, strict=True)
    ]
    np.testing.assert_allclose(pictures.ssim(frames, truth), expected, rtol=1e-9)
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(frames, truth, strict=True)]
    np.testing.assert_allclose(pictures.psnr(frames, truth), expected, rtol=1e-9)


def test_psnr_of_a_face_looks_at_the_rounded_box_alone(pair):
    frames, truth = pair
    boxes = np.array([(4.4, 6.6, 20.2, 30.0), (np.nan,) * 4, (0, 0, 36, 40)])
    found = pictures.psnr_in_boxes(frames, truth, boxes)
    error = np.square(frames[0, 7:30, 4:20].astype(float) - truth[0, 7:30, 4:20]).mean()
    assert found[0] == pytest.approx(10 * np.log10(255**2 / error))
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(pictures.psnr(frames, truth)[2])


def test_gradient_deviation_is_that_of_plain_loops():
    frames, truth = noise(0, 2, 12, 12), noise(1, 2, 12, 12)

    def magnitude(picture: np.ndarray) -> np.ndarray:
        grey = picture.astype(float) @ [0.299, 0.587, 0.114]
        half = np.array(
            [[grey[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(6)] for y in range(6)]
        )
        padded = np.pad(half, 1, mode="symmetric")
        result = np.zeros((6, 6))
        for y in range(6):
            for x in range(6):
                part = padded[y : y + 3, x : x + 3]
                down, across = (part[2] - part[0]).sum() / 3, (part[:, 2] - part[:, 0]).sum() / 3
                result[y, x] = np.sqrt(down**2 + across**2)
        return result

    found = pictures.gradient_deviation(frames, truth)
    for number in range(2):
        a, b = magnitude(frames[number]), magnitude(truth[number])
        expected = ((2 * a * b + 170) / (a**2 + b**2 + 170)).std()
        assert found[number] == pytest.approx(expected)
    assert (pictures.gradient_deviation(frames, frames) == 0).all()


def test_change_error_sees_flicker_and_not_a_steady_offset():
    truth = np.repeat(noise(0, 1, 16, 16) // 2, 4, axis=0)
    assert pictures.change_error(truth + 10, truth) == 0
    flicker = truth + np.array([0, 10, 0, 10], dtype=np.uint8)[:, None, None, None]
    assert pictures.change_error(flicker, truth) == pytest.approx(10)


def test_feature_distance_grows_with_the_error_and_is_at_most_four():
    torch.manual_seed(0)
    config = {
        "block_out_channels": [32, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "layers_per_block": 1,
    }
    encoder = build_vae(config).encoder
    truth, other = noise(0, 2, 32, 32), noise(1, 2, 32, 32)
    near = (truth * 0.9 + other * 0.1).astype(np.uint8)
    near_distance = pictures.feature_distance(encoder, near, truth)
    far_distance = pictures.feature_distance(encoder, other, truth)
    assert pictures.feature_distance(encoder, truth, truth) == pytest.approx([0, 0], abs=1e-6)
    assert (near_distance > 0).all() and (near_distance < far_distance).all() and (far_distance <= 4).all()


def test_pose_error_counts_the_joints_in_the_picture_as_share_of_the_height():
    skeleton = Frame((person(),), 100, 200)
    truth = skeleton.people[0].body * [100, 200]
    found = truth + [3.0, 4.0]
    found[10] += 500  # outside the picture: does not count
    assert pose_error(found[None], [skeleton], 50.0) == pytest.approx(5 / 50)
    assert pose_error(found[None], [Frame((), 100, 200)], 50.0) is None


@pytest.mark.parametrize("seed", [clips.FIRST_TEST, clips.FIRST_TEST + 4, clips.FIRST_TEST + 9])
def test_the_height_from_the_skeleton_is_that_of_the_camera(seed):
    """Generated and recorded motions; the camera itself is drawn after person, outfit and scene."""
    clip = clips.evaluation_clip(seed, 8)
    assert clip is not None
    rng = np.random.default_rng([seed, seed, 2])
    draw_outfit(rng)
    framing = str(rng.choice(["half", "knees", "full"], p=[0.45, 0.3, 0.25]))
    draw_scene(rng, 128 * 4)
    scale, _ = _camera(rng, draw_person(seed), framing, 128 * 4)
    assert clip.body_height == pytest.approx(scale / 4 * height_in_heads(draw_person(seed)), rel=0.03)


def test_a_skeleton_without_a_limb_has_no_height():
    with pytest.raises(NoPersonError, match="no whole limb"):
        body_height(draw_person(0), [Frame((Person(),), 64, 64)])


def test_a_clip_is_the_same_every_time_and_its_reference_is_not_among_the_judged_frames():
    first, again = (clips.evaluation_clip(clips.FIRST_TEST, 4, SIZE) for _ in range(2))
    assert first is not None and again is not None
    assert (first.frames == again.frames).all() and (first.inputs.poses == again.inputs.poses).all()
    assert all((first.inputs.reference != frame).any() for frame in first.frames)
    assert first.frames.shape == first.inputs.poses.shape == (4, SIZE, SIZE, 3)
    assert len(first.inputs.skeletons) == len(first.face_boxes) == 4
    assert first.has_face.any()


def test_test_and_validation_people_are_held_out_and_apart():
    from stableanimator_core.puppets.training_set import HELD_OUT

    assert HELD_OUT <= clips.FIRST_TEST
    assert clips.FIRST_VALIDATION + 100_000 <= HELD_OUT


def test_both_recordings_and_generated_motions_are_judged():
    motions = {clips.recording_of(clips.FIRST_TEST + offset) for offset in range(10)}
    assert motions == {None, *clips.RECORDINGS}


def test_faceless_seeds_are_passed_over(monkeypatch):
    def clip_of(seed: int, *_: int):
        return None if seed % 2 else made_up_clip(seed)

    monkeypatch.setattr(clips, "evaluation_clip", clip_of)
    assert [clip.name for clip in clips.evaluation_clips(3, 4, first=11)] == ["12", "14", "16"]


def test_no_clips_and_still_pictures_are_refused():
    with pytest.raises(InputError, match="Ask for one clip"):
        next(clips.evaluation_clips(0, 8))
    with pytest.raises(InputError, match="are 1 of 1 frames"):
        next(clips.evaluation_clips(1, 1))


def test_csim_is_the_mean_cosine_of_the_frames_with_a_face():
    faces = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [torch.nan] * 3])
    assert csim(faces, torch.tensor([3.0, 0, 0])) == pytest.approx(0.5)
    assert csim(faces, torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])) == pytest.approx(1)
    assert csim(faces[2:], torch.ones(3)) is None


def test_identities_look_at_the_box_alone():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(14), torch.nn.Flatten(), torch.nn.Linear(192, 512))
    clip = made_up_clip()
    changed = clip.frames.copy()
    changed[:, 40:] = 0  # below the box
    before, after = (identities_of(network, frames, clip.face_boxes) for frames in (clip.frames, changed))
    torch.testing.assert_close(before, after, equal_nan=True)
    changed[:, int(BOX[1]) : 20, 20:44] = 0
    assert not torch.allclose(before[0], identities_of(network, changed, clip.face_boxes)[0])
    assert before[-1].isnan().all()
