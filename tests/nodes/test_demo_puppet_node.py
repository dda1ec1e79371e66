"""Demo Puppet: a person and a dance from numbers alone, fit for the nodes that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

DEFAULTS = {"person": 1_000_014, "motion_seed": 1_000_006, "framing": "half", "size": 128, "num_frames": 4}


def puppet(pack, **changes):
    return pack.DemoPuppet.execute(**{**DEFAULTS, **changes}).args


def body(frame: dict) -> np.ndarray:
    return np.array(frame["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)


def test_the_same_numbers_give_the_same_person_and_another_person_looks_different(pack):
    portrait, mask, pose, motion, count = puppet(pack)
    again = puppet(pack)
    assert torch.equal(portrait, again[0]) and torch.equal(mask, again[1])
    assert (pose, motion, count) == again[2:]
    assert not torch.equal(portrait, puppet(pack, person=1_000_015)[0])
    assert motion != puppet(pack, motion_seed=1_000_007)[3]


@pytest.mark.parametrize("size", [64, 128, 192])
def test_portrait_and_mask_have_the_size_that_was_asked_for(size, pack):
    portrait, mask, *_ = puppet(pack, size=size, num_frames=1)
    assert portrait.shape == (1, size, size, 3) and mask.shape == (1, size, size)
    assert portrait.min() >= 0 and portrait.max() <= 1


def test_the_mask_lies_on_the_head_of_the_skeleton(pack):
    _, mask, pose, *_ = puppet(pack)
    x, y = body(pose[0])[0, :2] / 512 * 128  # the nose
    rows, columns = np.nonzero(mask[0].numpy())
    assert rows.min() < y < rows.max() and columns.min() < x < columns.max()
    assert 0.02 < mask.mean() < 0.2


def test_the_dance_sets_off_from_the_portrait_and_has_as_many_frames_as_said(pack):
    _, _, pose, motion, count = puppet(pack, num_frames=9)
    assert len(motion) == count == 9
    assert motion[0] == pose[0]
    assert np.abs(body(motion[-1]) - body(motion[0])).max() > 20


def test_the_dancer_keeps_the_portraits_build(pack):
    """Shoulders are as far apart in the motion as in the portrait, as long as the person faces us."""
    _, _, pose, motion, _ = puppet(pack, num_frames=3)

    def shoulders(frame):
        return np.linalg.norm(body(frame)[2, :2] - body(frame)[5, :2])

    assert shoulders(motion[1]) == pytest.approx(shoulders(pose[0]), rel=0.05)


def test_the_pose_does_not_depend_on_the_portraits_size(pack):
    assert puppet(pack, size=64)[2] == puppet(pack, size=256)[2]


def test_more_of_the_body_is_seen_with_each_framing(pack):
    words = pack.module("nodes.demo_puppet")._FRAMINGS
    assert words == list(pack.module("stableanimator_core.puppets.clip").FRAMINGS)
    faces = [puppet(pack, framing=word, num_frames=1)[1].sum() for word in words]
    assert faces[0] > faces[1] > faces[2] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 100}, "size: is 100. Use a multiple of 64"),
        ({"size": 1024}, "size: is 1024"),
        ({"num_frames": 0}, "num_frames: is 0"),
        ({"person": -1}, "person: is -1"),
        ({"framing": "feet"}, "choose one of half, knees, full"),
    ],
    ids=lambda value: str(value),
)
def test_a_number_out_of_range_is_named_also_when_it_comes_over_a_link(changes, words, pack):
    with pytest.raises(ValueError) as caught:
        puppet(pack, **changes)
    assert str(caught.value).startswith("Demo Puppet - ")
    assert words.lower() in str(caught.value).lower()


def test_the_schemas_defaults_are_nobody_the_small_model_was_trained_on(pack):
    held_out = pack.module("stableanimator_core.puppets.training_set").HELD_OUT
    defaults = {node_input.id: getattr(node_input, "default", None) for node_input in schema(pack).inputs}
    assert defaults["person"] >= held_out and defaults["motion_seed"] >= held_out
    assert {**defaults, "num_frames": 4} == DEFAULTS


def schema(pack):
    return pack.DemoPuppet.define_schema()


def test_pose_draw_at_512_and_apply_posenets_resize_give_the_skeletons_of_training(pack):
    """At 128 the lines would be thinner than a pixel: they are drawn large and shrunk."""
    preprocess = pack.module("stableanimator_core.preprocess")
    clip = pack.module("stableanimator_core.puppets").make_clip(1_000_001, 1_000_002, 3, 128)
    poses = pack.module("stableanimator_core.pose.keypoints").to_pose_keypoints(clip.poses)
    drawn = pack.PoseDraw.execute(poses, 512, 512, "contain", True, True, True).args[0]
    pixels = preprocess.pose_pixels(preprocess.to_uint8(drawn), 128, 128)
    wanted = torch.from_numpy(clip.skeletons()).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert wanted.max() > -0.5  # something is drawn
    differing = (pixels - wanted).abs() > 0.02
    assert differing.float().mean() < 0.001
