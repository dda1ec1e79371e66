import pytest
import torch
from network_models import GOLDENS, official_keys, on_meta, shapes

from stableanimator_core.conformance.run import run_case
from stableanimator_core.models.pose_net import PoseNet


def test_pose_net_gives_the_official_output():
    rows = run_case(GOLDENS, "pose_net")
    assert rows and all(row.ok for row in rows), rows


def test_pose_net_has_exactly_the_official_keys():
    keys = official_keys("pose_net_full")
    with torch.device("meta"):
        pose_net = PoseNet(**PoseNet.config_from(on_meta(keys)))
    assert len(keys) == 19
    assert shapes(pose_net) == keys


@pytest.mark.parametrize("shape", [(6, 3, 64, 128), (2, 3, 3, 64, 128)])
def test_features_are_an_eighth_of_the_picture_with_frames_in_one_axis(shape):
    assert PoseNet(32)(torch.zeros(shape)).shape == (6, 32, 8, 16)


def test_training_starts_without_any_pose():
    assert not PoseNet(32)(torch.randn(1, 3, 64, 64)).any()


def test_pose_net_runs_in_half_precision():
    pose_net = PoseNet(32).bfloat16()
    assert pose_net(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
