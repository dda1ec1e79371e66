"""The eight lines of the README, and what they say when something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_core import demo_weights, quick
from stableanimator_core.errors import InputError, WeightsError

MOTION = Path(__file__).parents[2] / "assets" / "motion" / "jumping_jacks_1768x994.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    demo_weights.write(folder / "stableanimator")
    return folder


def test_a_clip_is_made_from_files(folder: Path, tmp_path: Path):
    Image.new("RGB", (70, 90), (180, 120, 90)).save(tmp_path / "photo.png")
    photo = quick.open_photo(tmp_path / "photo.png")
    poses = quick.skeletons(MOTION, 64, 64)[:2]
    identity = np.random.default_rng(0).standard_normal(512)
    from stableanimator_core.pipeline import AnimationOptions

    animator = quick.load_animator(folder)
    clip = animator.animate(
        photo, poses, identity, height=64, width=64, seed=1, options=AnimationOptions(num_steps=2)
    )
    assert clip.frames.shape == (2, 64, 64, 3)
    assert clip.frames.std() > 0


def test_a_missing_network_is_named_with_the_places_searched(tmp_path: Path):
    with pytest.raises(WeightsError, match="unet.pth") as refused:
        quick.load_animator(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path):
    (tmp_path / "photo.png").write_text("not a picture")
    with pytest.raises(InputError, match="picture"):
        quick.open_photo(tmp_path / "photo.png")
