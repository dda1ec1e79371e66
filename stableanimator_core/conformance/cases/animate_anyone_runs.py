"""Animate Anyone's noise levels, windows and whole runs, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...animate_anyone import ddim
from ...animate_anyone.attention import Reference
from ...animate_anyone.denoising_unet import build_denoising_unet
from ...animate_anyone.guidance import GuidedDenoiser
from ...animate_anyone.pipeline import AnimateAnyone, AnyoneOptions, draw
from ...animate_anyone.pose_guider import PoseGuider
from ...animate_anyone.preprocess import clip_pixels, pose_pixels, reference_pixels
from ...animate_anyone.reference_net import build_reference_net
from ...decode import DecodeOptions, decode_clip
from ...models.image_encoder import build_image_encoder
from ...models.vae import SCALING_FACTOR, build_image_vae, decode_pictures
from ...windows import looped_windows
from ..checks import Row, absolute, case, exact, relative
from ..golden import Golden
from .animate_anyone import network_config, scale_weights

_SAMPLE, _STAGE, _STEP, _VIDEO = 1e-5, 5e-5, 2e-4, 5e-4  # largest difference over the golden's largest value


@case("ddim")
def check_ddim(golden: Golden) -> Iterator[Row]:
    """Noise levels, times, and single steps from given network outputs."""
    alphas = ddim.alphas_cumprod()
    yield absolute("alphas_cumprod", alphas, golden.expected("alphas_cumprod"), 1e-6)
    raw = ddim.alphas_cumprod(zero_snr=False)
    yield absolute(
        "alphas_cumprod_before_rescale", raw, golden.expected("alphas_cumprod_before_rescale"), 1e-6
    )
    for text, run in golden.sidecar["runs"].items():
        steps = int(text)
        times = ddim.trailing_timesteps(steps)
        previous = [ddim.previous_timestep(time, steps) for time in times]
        yield exact(f"n{text}.timesteps", torch.tensor(times), golden.expected(f"n{text}.timesteps"))
        yield exact(
            f"n{text}.previous_timesteps",
            torch.tensor(previous),
            golden.expected(f"n{text}.previous_timesteps"),
        )
        for name, moments in (("at_timesteps", times), ("prev", previous)):
            ours = torch.stack([ddim.alpha_at(alphas, time) for time in moments])
            stored = golden.expected(f"n{text}.alphas_cumprod_{name}")
            yield absolute(f"n{text}.alphas_cumprod_{name}", ours, stored, 1e-6)
        yield from _single_steps(golden, f"n{text}.", run["step_indices"], times, previous)


def _single_steps(
    golden: Golden, prefix: str, indices: list[int], times: list[int], previous: list[int]
) -> Iterator[Row]:
    alphas = ddim.alphas_cumprod()
    sample = golden[f"{prefix}sample"]
    for index in indices:
        if index == len(times) // 2:
            sample = golden[f"{prefix}sample_middle"]
        alpha = ddim.alpha_at(alphas, times[index])
        x0 = ddim.predicted_x0(sample, golden[f"{prefix}model_output_{index}"], alpha)
        sample = ddim.ddim_step(sample, x0, alpha, ddim.alpha_at(alphas, previous[index]))
        yield relative(
            f"{prefix}pred_original_{index}", x0, golden.expected(f"{prefix}pred_original_{index}"), _SAMPLE
        )
        yield relative(
            f"{prefix}prev_sample_{index}", sample, golden.expected(f"{prefix}prev_sample_{index}"), _SAMPLE
        )


@case("context")
def check_context(golden: Golden) -> Iterator[Row]:
    """Windows of every length, size and overlap stored; also strides, turns and the open loop."""
    side = golden.sidecar
    for table in (side["default"], *side["other_sizes"], *side["larger_strides"], *side["open_loop"]):
        settings = {"stride": table["stride"], "close": table["closed_loop"]}
        size, overlap = table["context_size"], table["overlap"]
        for frames, windows in table["windows"].items():
            ours = looped_windows(int(frames), size, overlap, **settings)
            yield exact(f"{frames} frames, {size}/{overlap}, {settings}", ours, windows)
        for frames, counts in table.get("windows_per_frame_count", {}).items():
            ours = looped_windows(int(frames), size, overlap, **settings)
            count = [sum(window.count(frame) for window in ours) for frame in range(int(frames))]
            yield exact(f"{frames} frames, {size}/{overlap}: windows per frame", count, counts)
    for table in side["other_steps"]:
        for step, windows in table["windows_by_step"].items():
            ours = looped_windows(
                table["frames"],
                table["context_size"],
                table["overlap"],
                stride=table["stride"],
                close=table["closed_loop"],
                turn=side["ordered_halving"][step],
            )
            yield exact(f"turned as at step {step}", ours, windows)


@case("pipeline_long_*")
def check_pipeline(golden: Golden) -> Iterator[Row]:
    """Every stored stage, each from our own stage before it."""
    system, options = system_of(golden), options_of(golden)
    run = golden.sidecar["run"]
    size = (run["height"], run["width"])
    photo, poses = golden["ref_image"].numpy(), golden["pose_images"].numpy()
    pixels = clip_pixels(photo)[..., ::4, ::4]
    yield absolute("clip_pixels_every_4th", pixels, golden.expected("clip_pixels_every_4th"), 1e-4)
    yield absolute("ref_pixels", reference_pixels(photo, *size), golden.expected("ref_pixels"), 1e-4)
    skeletons = pose_pixels(poses, *size)
    yield absolute("pose_pixels_frame1", skeletons[1:2], golden.expected("pose_pixels_frame1"), 1e-4)
    token = system.image_token(photo)
    yield relative("image_embeds", token[0], golden.expected("image_embeds"), _STAGE)
    latents = system.reference_latents(photo, *size)
    yield relative("reference_latent", latents, golden.expected("reference_latent"), _STAGE)
    features = system.pose_features(skeletons)
    yield relative("pose_feature", _video(features), golden.expected("pose_feature"), _STAGE)
    yield exact("windows", options.windows(len(poses)), golden.sidecar["windows"])
    noise = draw(run["seed"], len(poses), *size)
    yield exact("noise", _video(noise), golden.expected("noise"))
    yield exact(
        "timesteps", torch.tensor(ddim.trailing_timesteps(options.num_steps)), golden.expected("timesteps")
    )
    denoiser = GuidedDenoiser(
        unet=system.denoising_unet,
        token=token,
        reference=system.reference(photo, token, *size, options),
        pose_features=features,
        windows=options.windows(len(poses)),
        guidance=options.guidance,
    )
    yield from _sampling(golden, system, denoiser, noise, options)


def _sampling(
    golden: Golden, system: AnimateAnyone, denoiser: GuidedDenoiser, noise: Tensor, options: AnyoneOptions
) -> Iterator[Row]:
    first = int(golden["timesteps"][0])
    for name, window in (("window0", denoiser.windows[0]), ("last_window", denoiser.windows[-1])):
        output = denoiser.predict_window(noise, first, window).transpose(1, 2)
        yield relative(f"pred_step0_{name}", output, golden.expected(f"pred_step0_{name}"), _STEP)
    latents, outputs = _steps(denoiser, noise, options.num_steps)
    for step, (after, output) in enumerate(zip(latents, outputs, strict=True)):
        yield relative(
            f"model_output[{step}]", _video(output)[0], golden.expected("model_output")[step], _STEP
        )
        yield relative(
            f"latents_after_step[{step}]",
            _video(after)[0],
            golden.expected("latents_after_step")[step],
            _STEP,
        )
    frames = _decoded(system, latents[-1], options)
    name = "video" if "video" in golden.tensors else "video_even_frames"
    shown = frames if name == "video" else frames[::2]
    yield relative(name, _video(shown), golden.expected(name), _VIDEO)
    exactly = GuidedDenoiser(**{**vars(denoiser), "reference": _unrounded(golden, system)})
    for step, after in enumerate(_steps(exactly, noise, options.num_steps)[0]):
        name = "latents_after_step_features_float32"
        yield relative(f"{name}[{step}]", _video(after)[0], golden.expected(name)[step], _STEP)


def _steps(denoiser: GuidedDenoiser, noise: Tensor, num_steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Latents after each step, and the guided v-prediction of each step."""
    entering: list[Tensor] = []
    outputs: list[Tensor] = []

    def recording(latents: Tensor, timestep: int, step: int) -> Tensor:
        entering.append(latents)
        outputs.append(denoiser(latents, timestep, step))
        return outputs[-1]

    final = ddim.sample_ddim(recording, noise, num_steps)
    return [*entering[1:], final], outputs


def _unrounded(golden: Golden, system: AnimateAnyone) -> Reference:
    run, photo = golden.sidecar["run"], golden["ref_image"].numpy()
    token = system.image_token(photo)
    return system.reference(photo, token, run["height"], run["width"], AnyoneOptions())


def _decoded(system: AnimateAnyone, latents: Tensor, options: AnyoneOptions) -> Tensor:
    """[f 3 H W] in 0..1."""
    frames = decode_clip(
        lambda chunk: decode_pictures(system.vae, chunk), latents / SCALING_FACTOR, options.decode
    )
    return frames.permute(0, 3, 1, 2)


def _video(frames: Tensor) -> Tensor:
    """[f c h w] to (1, c, f, h, w)."""
    return frames.transpose(0, 1)[None]


def options_of(golden: Golden) -> AnyoneOptions:
    """A sidecar's run settings as ours, with the official rounding."""
    run = golden.sidecar["run"]
    return AnyoneOptions(
        num_steps=run["steps"],
        guidance=run["guidance"],
        window_size=run["context_frames"],
        overlap=run["overlap"],
        round_reference=True,
        decode=DecodeOptions(chunk=4),
    )


def system_of(golden: Golden) -> AnimateAnyone:
    """The five tiny networks of a pipeline golden, filled by the recipe; the pose guider with its gain."""
    configs: dict[str, Any] = golden.sidecar["configs"]
    guider = PoseGuider(
        configs["pose_guider"]["conditioning_embedding_channels"],
        configs["pose_guider"]["block_out_channels"],
    )
    system = AnimateAnyone(
        denoising_unet=golden.fill(
            build_denoising_unet(network_config(configs["denoising_unet"])), model="denoising_unet"
        ),
        reference_net=golden.fill(
            build_reference_net(network_config(configs["reference_unet"])), model="reference_unet"
        ),
        pose_guider=golden.fill(guider, model="pose_guider"),
        vae=golden.fill(build_image_vae(configs["vae"]), model="vae"),
        image_encoder=golden.fill(build_image_encoder(configs["image_encoder"]), model="image_encoder"),
    )
    scale_weights(guider, golden.sidecar["pose_guider_gain"])
    return system
