"""The official long pipeline's goldens through the nodes: DDIM Trailing gives its latents, core's decode its frames."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anyone import clip, custom, largest, sockets

from stableanimator_core.conformance.cases.animate_anyone_runs import system_of
from stableanimator_core.conformance.checks import relative
from stableanimator_core.conformance.golden import Golden, open_golden

GOLDENS = Path(__file__).parents[1] / "goldens" / "animate_anyone"
WITH_ROUNDING, WITHOUT = "latents_after_step", "latents_after_step_features_float32"
LATENTS, FRAMES = 2e-4, 5e-4  # as published with the goldens


@pytest.fixture(scope="module", params=sorted(path.stem for path in GOLDENS.glob("pipeline_long_*.json")))
def golden(request: pytest.FixtureRequest) -> Golden:
    return open_golden(GOLDENS, request.param)


@pytest.fixture(scope="module")
def models(golden: Golden, pack) -> SimpleNamespace:
    return sockets(pack, system_of(golden))


def made_from(golden: Golden, pack, models, official_rounding: bool) -> SimpleNamespace:
    run = golden.sidecar["run"]
    core = pack.module("stableanimator_core.animate_anyone.preprocess")
    poses = core.pose_pixels(golden["pose_images"].numpy(), run["height"], run["width"]).permute(0, 2, 3, 1)
    return clip(
        pack,
        models,
        run["frames"],
        poses=poses,
        image=golden["ref_image"][None].float() / 255,
        width=run["width"],
        height=run["height"],
        official_rounding=official_rounding,
    )


def windowed(golden: Golden, pack, models):
    run = golden.sidecar["run"]
    return pack.LoopedWindows.execute(models.model, run["context_frames"], run["overlap"], "closed").args[0]


def sampled(golden: Golden, pack, models, official_rounding: bool) -> torch.Tensor:
    run = golden.sidecar["run"]
    noise = golden["noise"][0].transpose(0, 1)
    made = made_from(golden, pack, models, official_rounding)
    return custom(pack, windowed(golden, pack, models), made, noise, run["steps"], run["guidance"])


@pytest.mark.parametrize("official_rounding", [True, False])
def test_sampler_custom_with_ddim_trailing_gives_the_official_latents(
    official_rounding, golden, pack, models, core_comfy
):
    expected = golden[WITH_ROUNDING if official_rounding else WITHOUT][-1].transpose(0, 1) / 0.18215
    error = largest(sampled(golden, pack, models, official_rounding) - expected, expected)
    assert error < LATENTS


def test_cores_decode_gives_the_official_frames(golden, pack, models, core_comfy):
    name = "video" if "video" in golden.tensors else "video_even_frames"
    latents = sampled(golden, pack, models, True)
    with torch.inference_mode():
        images = core_comfy.VAEDecode().decode(models.vae, {"samples": latents})[0]
    frames = images.permute(3, 0, 1, 2)[None]
    frames = frames if name == "video" else frames[:, :, ::2]
    assert relative(name, frames, golden.expected(name), FRAMES).ok


def test_core_knows_the_official_noise_levels(golden, models):
    from stableanimator_core.animate_anyone.ddim import alphas_cumprod

    sigmas = models.model.get_model_object("model_sampling").sigmas
    alphas = 1 / (1 + sigmas**2)
    assert (alphas - alphas_cumprod()).abs().max() < 1e-6
