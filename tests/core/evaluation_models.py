"""Small random networks and made-up clips for the tests of the evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stableanimator_core import demo_weights
from stableanimator_core.evaluation.clips import EvaluationClip, Inputs
from stableanimator_core.evaluation.joint_detector import JointDetector, save_joint_detector
from stableanimator_core.models.iresnet import IResNet
from stableanimator_core.pose.people import Frame, Person
from stableanimator_core.weights.files import save_weights

SIZE, FRAMES = 64, 3
BOX = (20.0, 8.0, 44.0, 34.0)


def write_weights(folder: Path) -> Path:
    """A folder in the layout of the small model, judges included."""
    demo_weights.write(folder)
    torch.manual_seed(7)
    judge = {**demo_weights.RECOGNISER, "widths": [8] * 4, "stem_width": 8}
    save_weights(folder / "judge.safetensors", IResNet(**judge).state_dict(), {})
    save_joint_detector(folder / "joints.safetensors", JointDetector((8, 8, 8, 8)))
    return folder


def write_anyone(folder: Path) -> None:
    """Animate Anyone's files beside them, as narrow as the image encoder's tokens allow."""
    from stableanimator_core.animate_anyone.denoising_unet import add_motion_modules, build_denoising_unet
    from stableanimator_core.animate_anyone.pose_guider import PoseGuider
    from stableanimator_core.animate_anyone.reference_net import build_reference_net
    from stableanimator_core.training.small.normalised_vae import NormalisedVAE

    torch.manual_seed(8)
    config = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "cross_attention_dim": demo_weights.TOKEN_WIDTH,
        "attention_head_dim": 4,
    }
    unet = build_denoising_unet(config)
    add_motion_modules(unet, heads=4)
    state = unet.state_dict()
    motion = {key: value for key, value in state.items() if ".motion_modules." in key}
    video_vae = NormalisedVAE(
        demo_weights.VAE
    ).vae  # its temporal layers do nothing, so it serves both systems
    save_weights(folder / "SVD" / "vae" / "diffusion_pytorch_model.safetensors", video_vae.state_dict())
    guider = PoseGuider(out_channels=32, widths=(8, 8, 8, 8))
    torch.nn.init.normal_(guider.conv_out.weight, std=0.1)  # it starts at zero, which would hide the poses
    files = {
        "denoising_unet": ({key: value for key, value in state.items() if key not in motion}, config),
        "reference_unet": (build_reference_net(config).state_dict(), config),
        "motion_module": (motion, None),
        "pose_guider": (guider.state_dict(), None),
    }
    for name, (tensors, about) in files.items():
        metadata = {"config": json.dumps(about)} if about else {}
        save_weights(folder / "animate_anyone" / f"{name}.safetensors", tensors, metadata)


def noise(seed: int, *shape: int) -> np.ndarray:
    """uint8 random pixels [*shape 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def person() -> Person:
    """A standing skeleton without hands; the right ankle lies outside the picture."""
    body = np.stack([np.linspace(0.3, 0.7, 18), np.linspace(0.1, 0.9, 18)], axis=1)
    scores = np.ones(18)
    scores[10] = 0
    body[10] = 0
    face = np.random.default_rng(0).uniform(0.35, 0.6, (68, 2))
    return Person().with_part("body", body, scores).with_part("face", face, np.ones(68))


def made_up_clip(number: int = 0) -> EvaluationClip:
    """Noise with a face box; the last frame shows no face."""
    boxes = np.array([BOX] * (FRAMES - 1) + [(np.nan,) * 4])
    frame = Frame((person(),), SIZE, SIZE)
    inputs = Inputs(
        noise(number + 100, SIZE, SIZE),
        BOX,
        noise(number + 200, FRAMES, SIZE, SIZE),
        [frame] * FRAMES,
        number,
    )
    return EvaluationClip(str(number), "generated", inputs, noise(number, FRAMES, SIZE, SIZE), boxes, 60.0)


@dataclass
class Planted:
    """A system that gives the truth with some noise on it, and counts how often it is asked."""

    name: str
    clips: list[EvaluationClip]
    error: float
    fingerprint: str = "planted"
    calls: int = 0

    def animate(self, inputs: Inputs) -> np.ndarray:
        self.calls += 1
        truth = next(clip.frames for clip in self.clips if clip.inputs is inputs)
        rng = np.random.default_rng(inputs.seed)
        noisy = truth + rng.normal(0, self.error, truth.shape)
        return np.clip(noisy, 0, 255).round().astype(np.uint8)
