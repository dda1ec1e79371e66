"""The shipped small weights do what they are shipped for, on a few held-out people: a look, not the evaluation.

The limits below lie between what the weights reach on these clips and what they reach with a part broken, so that
other library versions pass and a broken adapter or pose net does not. The whole evaluation is
`python -m stableanimator_core.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stableanimator_core import small_model
from stableanimator_core.evaluation.clips import EvaluationClip, evaluation_clips
from stableanimator_core.evaluation.judging import Judge, Measures
from stableanimator_core.evaluation.likeness import identity_of
from stableanimator_core.evaluation.networks import Networks
from stableanimator_core.evaluation.systems import Settings, StableAnimator, System, build_systems
from stableanimator_core.hjb.options import HJBOptions
from stableanimator_core.models.unet import AdapterOptions, denoise
from stableanimator_core.models.vae import SCALING_FACTOR, encode_mode
from stableanimator_core.pipeline import AnimationOptions, Draws
from stableanimator_core.preprocess import from_uint8, pose_pixels
from stableanimator_core.sigmas import predicted_x0, scale_input, timestep_of

CLIPS, FRAMES, STEPS, GUIDANCE = 3, 8, 8, 1.5
HJB_RATE, HJB_ITERATIONS = 0.1, 3

LEAST_GAIN_DB = 2.0
"""PSNR above copying the reference, mean of the clips."""
LARGEST_POSE_ERROR = 0.02
"""Share of the standing height, mean of the clips."""
ONE_STEP_CLIPS, SIGMA = 6, 16.0
"""Of the one-step test: the adapter helps some people much and others not, so more of them; and the noise level."""
LEAST_ADAPTER_GAIN, LEAST_FACE_GAIN = 0.01, 0.02
"""How much larger the error of one denoising step is in the face without the adapter (0.025 when this was written),
and with another's face (0.047). A broken adapter gives 0; the steps have fixed noise, so rounding alone moves them."""
LEAST_ADAPTER_CSIM = -0.02
"""CSIM (judge) with the face branch less without; single clips differ by this much either way."""
LEAST_HJB_GAIN, LEAST_HJB_GAIN_CLIMBED = 0.0, 0.02
"""CSIM with the face optimisation less without, mean of the clips: by the judge, and by the recogniser it climbs."""


@dataclass(frozen=True, repr=False)
class Bench:
    """The clips, the networks, and the measures of what has run so far."""

    networks: Networks
    clips: list[EvaluationClip]
    judges: list[Judge]
    kept: dict[str, list[Measures]]

    def mean(self, name: str, measure: str) -> float:
        """Mean over the clips of a measure of one of the known systems."""
        if name not in self.kept:
            self.kept[name] = self.judged(build_systems([name], self.networks, SETTINGS)[0])
        return mean_of(self.kept[name], measure)

    def judged(self, system: System) -> list[Measures]:
        """The measures of a system on each clip."""
        return [judge.measures(system.animate(judge.clip.inputs)) for judge in self.judges]

    def gain(self, name: str, other: str, measure: str) -> float:
        """Mean difference of two systems on the same clips."""
        return self.mean(name, measure) - self.mean(other, measure)


SETTINGS = Settings(
    AnimationOptions(num_steps=STEPS, guidance=(GUIDANCE, GUIDANCE)),
    HJBOptions(learning_rate=HJB_RATE, iterations=HJB_ITERATIONS, measure="never"),
)


class Silent(nn.Module):
    """A pose net that says nothing about the poses: its features are all zero."""

    def __init__(self, pose_net: nn.Module):
        super().__init__()
        self.pose_net = pose_net

    def forward(self, poses: Tensor) -> Tensor:
        return torch.zeros_like(self.pose_net(poses))


def mean_of(measures: list[Measures], name: str) -> float:
    return float(np.mean([found[name] for found in measures]))


@torch.no_grad()
def face_error(networks: Networks, clip: EvaluationClip, identity: Tensor, strength: float = 1.0) -> float:
    """Mean squared error in the face's latents of one denoising step from the true clip under noise of `SIGMA`."""
    animator, sigma = networks.animator, torch.tensor([SIGMA])
    height, width = clip.inputs.size
    pixels = from_uint8(clip.frames).permute(0, 3, 1, 2) * 2 - 1
    latents = encode_mode(animator.vae, pixels) * SCALING_FACTOR
    draws = Draws.from_seed(clip.inputs.seed, height, width, FRAMES)
    noisy = latents + SIGMA * draws.latent_noise
    found = animator.condition(clip.inputs.reference, identity, draws.image_noise, AnimationOptions())
    repeated = found.image_latents[:, None].expand(-1, FRAMES, -1, -1, -1)
    prediction = denoise(
        animator.unet,
        torch.cat((scale_input(noisy[None], sigma), repeated), dim=2),
        timestep_of(sigma),
        found.tokens,
        found.added_time_ids,
        pose_features=animator.pose_features(pose_pixels(clip.inputs.poses, height, width)),
        adapter=AdapterOptions(strength=strength),
    )
    error = (predicted_x0(noisy, prediction[0], sigma) - latents).square().mean(dim=1).numpy()
    boxes = [
        np.s_[frame, int(box[1] // 8) : int(box[3] // 8) + 1, int(box[0] // 8) : int(box[2] // 8) + 1]
        for frame, box in enumerate(clip.face_boxes)
        if np.isfinite(box).all()
    ]
    return float(np.concatenate([error[box].ravel() for box in boxes]).mean())


@pytest.fixture(scope="module")
def bench() -> Bench:
    folder = small_model.folder()
    if missing := small_model.missing(folder):
        pytest.fail(f"the shipped weights are not whole: {folder} lacks {', '.join(missing)}")
    networks = Networks.load(folder)
    clips = list(evaluation_clips(CLIPS, FRAMES))
    return Bench(networks, clips, [Judge(networks, clip) for clip in clips], {})


def test_the_judges_agree_with_the_truth(bench):
    """What they say about the true frames bounds what any result below can mean."""
    truth = [judge.measures(judge.clip.frames) for judge in bench.judges]
    assert mean_of(truth, "pose") < 0.01
    assert mean_of(truth, "csim") > 0.8 and mean_of(truth, "csim_climbed") > 0.8
    assert mean_of(truth, "csim_truth") == pytest.approx(1, abs=1e-4)


def test_it_beats_copying_the_reference(bench):
    assert bench.gain("full", "reference", "psnr") > LEAST_GAIN_DB


def test_it_keeps_to_the_poses(bench):
    assert bench.mean("full", "pose") < LARGEST_POSE_ERROR < bench.mean("reference", "pose")


def test_a_silent_pose_net_would_be_noticed(bench):
    animator = replace(bench.networks.animator, pose_net=Silent(bench.networks.animator.pose_net))
    networks = replace(bench.networks, animator=animator)
    broken = bench.judged(StableAnimator("broken", networks, SETTINGS.animation))
    assert mean_of(broken, "pose") > LARGEST_POSE_ERROR
    assert mean_of(broken, "psnr") - bench.mean("reference", "psnr") < LEAST_GAIN_DB


def test_a_step_draws_the_face_better_with_the_adapter_and_the_right_face(bench):
    """One step from the noised truth: no chance of a whole run gets between the adapter and what it brings."""
    clips = list(evaluation_clips(ONE_STEP_CLIPS, FRAMES))
    faces = [
        identity_of(bench.networks.recogniser, c.inputs.reference, c.inputs.reference_box) for c in clips
    ]
    others = faces[1:] + faces[:1]
    right = np.array([face_error(bench.networks, *pair) for pair in zip(clips, faces, strict=True)])
    wrong = np.array([face_error(bench.networks, *pair) for pair in zip(clips, others, strict=True)])
    without = np.array([face_error(bench.networks, c, f, 0.0) for c, f in zip(clips, faces, strict=True)])
    assert (without / right - 1).mean() > LEAST_ADAPTER_GAIN
    assert (wrong / right - 1).mean() > LEAST_FACE_GAIN


def test_the_adapter_does_not_cost_likeness(bench):
    assert bench.gain("full", "no_adapter", "csim") > LEAST_ADAPTER_CSIM


def test_the_face_optimisation_raises_the_likeness(bench):
    """The fast form: the exact one takes four times as long, and moves the same latents down the same gradient."""
    assert bench.gain("hjb_fast", "full", "csim_climbed") > LEAST_HJB_GAIN_CLIMBED
    assert bench.gain("hjb_fast", "full", "csim") > LEAST_HJB_GAIN
