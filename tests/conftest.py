"""What all tests share: the real ComfyUI server, started once, and the rule that CI skips nothing.

`scripts/test.py` names the ComfyUI folder and the browser in the environment. Without them the tests that
need them are skipped, loudly; under CI=true any skip is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))  # the demo and the tests drive the server by the same code


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of ComfyUI."""
    folder = os.environ.get("STABLEANIMATOR_COMFYUI")
    if not folder:
        pytest.skip("NOT RUN: no ComfyUI. Run scripts/test.py, or set STABLEANIMATOR_COMFYUI to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def real_clip() -> Path:
    """A video of people: 1768x994, 230 frames, 30 a second, no sound (BSD-3, (c) 2022 perfanalytics)."""
    folder = os.environ.get("STABLEANIMATOR_SAMPLES")
    if not folder:
        pytest.skip(
            "NOT RUN: no sample video. Run scripts/test.py, or name its folder in STABLEANIMATOR_SAMPLES"
        )
    return Path(folder) / "people.mp4"


@pytest.fixture(scope="session")
def demo_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models/stableanimator with small random weights in the real layouts."""
    folder = tmp_path_factory.mktemp("weights")
    command = [sys.executable, "-m", "stableanimator_core.demo_weights", str(folder)]
    subprocess.run(command, check=True, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small demo models' files: the shipped ones, and random ones for what this copy of the pack lacks."""
    from stableanimator_core import demo_weights, small_model
    from stableanimator_core.animate_anyone import demo_weights as anyone_weights

    shipped = small_model.folder()
    if not small_model.missing(shipped, judges=False) and not small_model.missing_anyone(shipped):
        return shipped
    folder = tmp_path_factory.mktemp("small")
    if small_model.missing(shipped, judges=False):
        demo_weights.write(folder, seed=7)
    else:
        shutil.copytree(shipped, folder, dirs_exist_ok=True)
    if small_model.missing_anyone(folder):
        encoder = json.loads((folder / "SVD" / "image_encoder" / "config.json").read_text(encoding="utf-8"))
        anyone_weights.write(folder / "animate_anyone", encoder["projection_dim"])
    return folder


@pytest.fixture(scope="session")
def comfy(comfyui: Path, demo_weights: Path, small_weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """The running server with the pack, random weights, the small demo model and sample inputs. One for the session.

    Use `comfy.client` to run prompts and `comfy.base` for its folders. Leave it as you found it.
    """
    import sample_inputs
    from comfy_server import ComfyServer, install_pack, make_base

    base = make_base(tmp_path_factory.mktemp("comfyui"))
    pack = install_pack(base / "custom_nodes")
    shutil.copytree(small_weights, pack / "weights" / "small", dirs_exist_ok=True)
    sample_inputs.put_into(base / "input", os.environ.get("STABLEANIMATOR_SAMPLES"))
    (base / "models" / "stableanimator").symlink_to(demo_weights, target_is_directory=True)
    with ComfyServer(Path(sys.executable), comfyui, base) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(comfy) -> dict:
    """What the server tells about this pack's nodes, by node id."""
    everything = comfy.client.object_info()
    return {
        node: info
        for node, info in everything.items()
        if info["python_module"] == "custom_nodes.stableanimator"
    }


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """In CI a skipped test has failed: nothing was shown."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped, which CI does not accept: {call.excinfo and call.excinfo.value}"
        )
