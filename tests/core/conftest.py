"""What the tests of whole training runs share: tiny networks, a tiny data set, and settings that train in seconds."""

from __future__ import annotations

import pytest
import training_data


@pytest.fixture(scope="session")
def training_weights(tmp_path_factory):
    """SVD's VAE and CLIP, and the recogniser, small and random."""
    return training_data.write_networks(tmp_path_factory.mktemp("training_weights"))


@pytest.fixture(scope="session")
def training_root(tmp_path_factory):
    """Four clip folders of 6, 5, 7 and 6 frames."""
    return training_data.write_data(tmp_path_factory.mktemp("training_data"), (6, 5, 7, 6))


@pytest.fixture(scope="session")
def training_cache(tmp_path_factory):
    """The cache that all runs on `training_root` share."""
    return tmp_path_factory.mktemp("training_cache")


@pytest.fixture
def configured(training_root, training_weights, training_cache, tmp_path):
    """Settings of a run into `tmp_path/NAME`, from the cache unless told otherwise; accelerate is left as it was."""

    def make(name="run", **changes):
        data = {"cache": str(training_cache), **changes.pop("data", {})}
        return training_data.settings(training_root, training_weights, tmp_path / name, data=data, **changes)

    yield make
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
