"""What the trainer writes, in Load Animator Models."""

from __future__ import annotations

from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from stableanimator_core.training.config import parse_settings
from stableanimator_core.training.trainer import train

SIDE, PARTS = 64, ("unet", "pose_net", "face_encoder")


@pytest.fixture
def checkpoint(pack, tmp_path):
    """One step of fine-tuning the random weights on noise, with a running mean; as models/stableanimator/mine."""
    for name in ("images", "poses", "faces"):
        folder = tmp_path / "data" / "rec" / "00001" / name
        folder.mkdir(parents=True)
        for frame in range(4):
            noise = np.random.default_rng(frame).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"frame_{frame}.png")
    models = pack.base / "models" / "stableanimator"
    files = {part: str(models / f"{part}.safetensors") for part in PARTS}
    buckets = [{"folder": "rec", "width": SIDE, "height": SIDE}]
    settings = parse_settings(
        {
            "output": str(models / "mine"),
            "data": {"root": str(tmp_path / "data"), "buckets": buckets, "num_frames": 3, "workers": 0},
            "networks": {"start": "stableanimator", "svd": str(models / "SVD"), **files},
            "identity": {"provider": "zeros"},
            "optimizer": {"learning_rate": 1e-2},
            "training": {"steps": 3, "device": "cpu", "mixed_precision": "no"},
            "ema": {"enabled": True},
        },
        tmp_path,
    )
    yield train(settings).checkpoint.relative_to(models)
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    rmtree(models / "mine")


def test_a_checkpoint_of_the_trainer_loads_in_both_forms(pack, models, checkpoint):
    """The .pth as trained, the .safetensors with the mean; both with the heads that were trained."""
    folder = pack.base / "models" / "stableanimator" / checkpoint
    loaded = {}
    for ending in ("pth", "safetensors"):
        names = [f"{checkpoint}/{part}.{ending}" for part in PARTS]
        model, _, _, pose_net, face_encoder = pack.LoadAnimatorModels.execute(*names, "SVD/", "fp32").args
        unet = model.model.diffusion_model
        assert heads_of(unet) == heads_of(models.model.model.diffusion_model)
        networks = {"unet": unet, "pose_net": pose_net.module, "face_encoder": face_encoder.module}
        loaded[ending] = {part: network.state_dict() for part, network in networks.items()}
    for part in PARTS:
        trained = torch.load(folder / f"{part}.pth", weights_only=True)
        assert trained.keys() <= {within(key, trained) for key in loaded["pth"][part]}
        for key, tensor in loaded["pth"][part].items():
            assert torch.equal(tensor, trained[within(key, trained)]), key
        mean = loaded["safetensors"][part]
        assert any(not torch.equal(mean[key], tensor) for key, tensor in loaded["pth"][part].items())


def heads_of(unet):
    return [module.heads for module in unet.modules() if hasattr(module, "to_q")]


def within(key, names):
    """The trained name that a loaded one stands for: the same, below another module perhaps."""
    return key if key in names else next(name for name in names if key.endswith(f".{name}"))
