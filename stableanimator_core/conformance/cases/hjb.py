"""hjb_a, hjb_b: one scheduler step with face optimisation, stage by stage; pipeline_pro: a whole run with it.

Goldens README 3.9; the face network is the small one of 3.6. Axes: f frames, h w latents, H W pixels, e
identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ...decode import DecodeOptions
from ...hjb.crop import displayed, face_crop
from ...hjb.decoder import Decoding
from ...hjb.identity_loss import IdentityLoss, faces_of_clip, pixels_of
from ...hjb.options import HJBOptions, Setting
from ...hjb.refine import refine_x0
from ...hjb.refiner import HJBRefiner
from ...hjb.regions import Box
from ...models.vae import SCALING_FACTOR, build_vae
from ...pipeline import Animation, AnimationOptions, Animator, Draws
from ...sigmas import StepHook, initial_noise_scale, karras_sigmas, predicted_x0
from ..checks import Row, absolute, case, differing_share, exact, mean_absolute, relative
from ..golden import Golden
from ..thinned import Expected
from .pipeline import animator_of

Z0_MEAN, Z0_BEYOND, Z0_SHARE = 1e-5, 1e-4, 0.005


class SmallEmbedder(nn.Module):
    """The face network of the HJB goldens, [n 3 112 112] -> [n 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=4, padding=1)
        self.fc = nn.Linear(16, 32)

    def forward(self, faces: Tensor) -> Tensor:
        hidden = torch.nn.functional.silu(self.conv1(faces))
        hidden = torch.nn.functional.silu(self.conv2(hidden))
        return self.fc(hidden.mean(dim=(2, 3)))


def inclusive_boxes(boxes: Tensor) -> list[list[Box]]:
    """Golden boxes [f 4] of y_min y_max x_min x_max, all included, as ours."""
    return [[Box(top, bottom + 1, left, right + 1)] for top, bottom, left, right in boxes.tolist()]


def golden_loss(golden: Golden, boxes: Tensor, latents: Tensor, chunk: int) -> IdentityLoss:
    """The loss of an HJB golden, for latents [f c h w], on its tiny decoder and face network."""

    vae = golden.fill(build_vae(golden.sidecar["vae_config"]))
    embedder = golden.fill(SmallEmbedder())
    faces = faces_of_clip(inclusive_boxes(boxes), *pixels_of(latents))
    setting = Setting(checkpointing="activations", chunk=chunk, dtype=torch.float32)
    return IdentityLoss(vae.decoder, embedder, golden["reference_embedding"], faces, setting)  # type: ignore


@case("hjb_a", "hjb_b")
def hjb(golden: Golden) -> Iterable[Row]:
    side = golden.sidecar
    sigma, next_sigma, sample = golden["sigma"], golden["sigma_next"], golden["sample"]
    x0 = predicted_x0(sample, golden["model_output"], sigma)
    yield relative("z0_initial", x0, golden.expected("z0_initial"), 1e-6)
    yield relative("pred_original_no_refine", x0, golden.expected("pred_original_no_refine"), 1e-6)
    learning_rate = HJBOptions().learning_rate_at(side["step_index"], side["num_inference_steps"])
    yield absolute("learning_rate", torch.tensor(learning_rate), torch.tensor(side["learning_rate"]), 1e-12)
    loss = golden_loss(golden, golden["boxes"], x0[0], side["decode_chunk_size"])
    yield from _first_pictures(golden, loss, x0[0])
    trace = _Trace(loss)
    refined = refine_x0(x0[0], trace, iterations=side["num_optimization_iter"], learning_rate=learning_rate)
    yield from _iterations(golden, trace, refined)
    euler = partial(_euler, sample=sample, sigma=sigma, next_sigma=next_sigma)
    yield from _z0_rows("prev_sample", euler(refined[None]), golden.expected("prev_sample"))
    yield relative("prev_sample_no_refine", euler(x0), golden.expected("prev_sample_no_refine"), 1e-6)


class _Trace:
    """The loss, and what it was at each iteration."""

    def __init__(self, loss: IdentityLoss):
        self.loss = loss
        self.latents, self.losses, self.gradients, self.cosines = [], [], [], []
        self.embeddings: list[Tensor] = []

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = self.loss.embedder.register_forward_hook(
            lambda module, inputs, output: seen.append(output.detach())
        )
        try:
            loss, gradient = self.loss(latents)
        finally:
            hook.remove()
        self.latents.append(latents.detach().clone())
        self.losses.append(loss)
        self.gradients.append(gradient)
        self.cosines.append(self.loss.cosines.clone())
        self.embeddings.append(torch.cat(seen))
        return loss, gradient


def _first_pictures(golden: Golden, loss: IdentityLoss, x0: Tensor) -> Iterable[Row]:
    if "decoded_iter0" not in golden.tensors:
        return
    chunks = (x0 / SCALING_FACTOR).split(loss.setting.chunk)
    decoded = torch.cat([Decoding(loss.decoder)(chunk) for chunk in chunks])
    yield relative("decoded_iter0", decoded, golden.expected("decoded_iter0"), 5e-5)
    faces = [face_crop(displayed(decoded)[frame], loss.faces.boxes[frame][0]) for frame in range(2)]
    crops = golden.expected("crops_iter0_first_frames")
    yield relative("crops_iter0_first_frames", torch.cat(faces)[: len(crops)], crops, 5e-5)


def _iterations(golden: Golden, trace: _Trace, refined: Tensor) -> Iterable[Row]:
    after = [*trace.latents[1:], refined]
    for index, z0 in enumerate(after):
        yield absolute(f"loss_iter[{index}]", trace.losses[index], golden.expected("loss_iter")[index], 1e-5)
        yield absolute(
            f"cosine_iter[{index}]", trace.cosines[index], golden.expected("cosine_iter")[index], 1e-5
        )
        embeddings, gradients = golden.expected("embedding_iter")[index], golden.expected("grad_iter")[index]
        yield relative(f"embedding_iter[{index}]", trace.embeddings[index], embeddings, 1e-4)
        yield relative(f"grad_iter[{index}]", trace.gradients[index][None], gradients, 1e-4)
        yield from _z0_rows(f"z0_after_iter[{index}]", z0[None], golden.expected("z0_after_iter")[index])


def _z0_rows(name: str, got: Tensor, expected: Expected) -> Iterable[Row]:
    yield mean_absolute(f"{name} mean", got, expected, Z0_MEAN)
    yield differing_share(name, got, expected, beyond=Z0_BEYOND, tolerance=Z0_SHARE)


def _euler(x0: Tensor, *, sample: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    return sample + (sample - x0) / sigma * (next_sigma - sigma)


@case("pipeline_pro")
def pipeline_pro(golden: Golden) -> Iterable[Row]:
    """The whole run through the façade, with and without the optimisation; README 3.6."""
    run = golden.sidecar["run"]
    pose_net = {"noise_latent_channels": golden.sidecar["unet_config"]["block_out_channels"][0]}
    animator = animator_of(replace(golden, sidecar={"pose_net_config": pose_net, **golden.sidecar}))
    sigmas = karras_sigmas(run["num_inference_steps"])
    refiner = HJBRefiner(
        animator.vae.decoder,  # type: ignore[arg-type]
        golden.fill(SmallEmbedder()),
        golden["reference_embedding"],
        inclusive_boxes(golden["boxes"]),
        HJBOptions(
            iterations=run["num_optimization_iter"],
            learning_rate=run["eta_scheduler"],
            start_step=run["start_refine_step"],
            end_step=run["end_refine_step"],
            chunk=run["decode_chunk_size"],
        ),
    )
    plain, _, _ = _animate(golden, animator, None)
    yield from _latent_rows(
        "latents_after_step_no_refine", plain, golden.expected("latents_after_step_no_refine")
    )
    latents, outputs, animation = _animate(golden, animator, refiner.hook(sigmas))
    yield from _latent_rows("model_output", outputs, golden.expected("model_output"))
    yield from _latent_rows("latents_after_step", latents, golden.expected("latents_after_step"))
    rates = {step: rate for step, rate in enumerate(run["learning_rates_per_step"]) if rate is not None}
    used = {step.step: step.learning_rate for step in refiner.report.steps}
    yield exact("steps and learning rates", used, rates)
    frames, expected = torch.from_numpy(animation.frames), golden.expected("frames_uint8")
    yield absolute("frames_uint8: levels", frames, expected, 1.0)
    yield differing_share("frames_uint8: share off by one", frames, expected, beyond=0.5, tolerance=0.01)


def _animate(
    golden: Golden, animator: Animator, refine: StepHook | None
) -> tuple[list[Tensor], list[Tensor], Animation]:
    """Latents after and v-prediction of each step, [f 4 h w], and the result of the golden's run."""
    run = golden.sidecar["run"]
    sigmas = karras_sigmas(run["num_inference_steps"])
    predicted: list[Tensor] = []
    refined: list[Tensor] = []

    def recorded(step: int, x0: Tensor) -> Tensor:
        predicted.append(x0)
        refined.append(x0 if refine is None else refine(step, x0))
        return refined[-1]

    draws = Draws(
        golden["image_noise"], golden["latent_noise"].reshape(-1, *golden["latent_noise"].shape[-3:])
    )
    animation = animator.animate(
        golden["input_image"].numpy(),
        golden["pose_images"].numpy(),
        golden["id_embedding"],
        height=run["height"],
        width=run["width"],
        options=_options(run),
        draws=draws,
        on_x0=recorded,
    )
    latents = draws.latent_noise * initial_noise_scale(sigmas)
    after: list[Tensor] = []
    outputs: list[Tensor] = []
    for step, sigma in enumerate(sigmas[:-1]):
        outputs.append((latents / (sigma**2 + 1) - predicted[step]) * (sigma**2 + 1).sqrt() / sigma)
        latents = _euler(refined[step], sample=latents, sigma=sigma, next_sigma=sigmas[step + 1])
        after.append(latents)
    return after, outputs, animation


def _options(run: dict) -> AnimationOptions:
    return AnimationOptions(
        num_steps=run["num_inference_steps"],
        guidance=(run["guidance_scale"], run["guidance_scale"]),
        window_size=run["tile_size"],
        fps=run["fps_argument"],
        motion_bucket_id=run["motion_bucket_id"],
        noise_augmentation=run["noise_aug_strength"],
        decode=DecodeOptions(chunk=run["decode_chunk_size"]),
    )


def _latent_rows(name: str, got: list[Tensor], expected: Expected) -> Iterable[Row]:
    for step, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        yield relative(f"{name}[{step}]", ours[None], theirs, 1e-3)
        yield mean_absolute(f"{name}[{step}] mean", ours[None], theirs, 1e-4)
