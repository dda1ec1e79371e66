"""train_loss: noise levels, one step's tensors, loss, gradient and dropout. train_frame_sampling: clips."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...sigmas import predicted_x0, scale_input, timestep_of
from ...training.dropout import kept_conditions
from ...training.frames import clip_frames, clip_length, reference_candidates
from ...training.loss import loss_weight, masked_loss, masks_on_latents, noised, per_video
from ...training.noise_levels import sigma_of, stratified
from ..checks import Row, case, close, exact
from ..golden import Golden

RTOL = 1e-5
ATOL = 1e-6
GRADIENT_ATOL = 1e-8
"""Near zero float32 leaves less than RTOL in the goldens themselves: against float64 1.1e-5 in denoised,
1.1e-4 in the gradient. The largest latents are 36, the largest gradient is 1.4e-2."""


@case("train_loss")
def train_loss(golden: Golden) -> Iterator[Row]:
    yield from _noise_levels(golden)
    yield from _step(golden)
    yield from _loss(golden)
    yield from _dropout(golden)


def _noise_levels(golden: Golden) -> Iterator[Row]:
    for name in golden.tensors:
        if name.startswith("sigmas_batch"):
            draws = golden[name.replace("sigmas", "sigma_draws")]
            yield close(name, sigma_of(stratified(draws)), golden.expected(name), rtol=1e-4, atol=0)


def _step(golden: Golden) -> Iterator[Row]:
    sigma = golden["sigmas"]
    noisy = noised(golden["latents"], golden["noise"], sigma)
    mask = masks_on_latents(golden["face_masks"], *golden["latents"].shape[-2:])
    ours = {
        "noisy_latents": noisy,
        "unet_noisy_input": scale_input(noisy, per_video(sigma)),
        "timesteps": timestep_of(sigma),
        "denoised": predicted_x0(noisy, golden["model_pred"], per_video(sigma)),
        "weighing": loss_weight(sigma),
    }
    for name, tensor in ours.items():
        yield close(name, tensor, golden.expected(name), rtol=RTOL, atol=ATOL)
    yield exact("face_masks_latent", mask, golden.expected("face_masks_latent"))


def _loss(golden: Golden) -> Iterator[Row]:
    latents, sigma, masks = golden["latents"], golden["sigmas"], golden["face_masks"]
    noisy = noised(latents, golden["noise"], sigma)
    prediction = golden["model_pred"].clone().requires_grad_()
    with torch.enable_grad():
        loss = masked_loss(prediction, noisy, latents, sigma, masks)
        (gradient,) = torch.autograd.grad(loss, prediction)
    without_faces = masked_loss(golden["model_pred"], noisy, latents, sigma, torch.zeros_like(masks))
    yield close("loss", loss.detach()[None], golden.expected("loss"), rtol=RTOL, atol=0)
    yield close("loss_zero_mask", without_faces[None], golden.expected("loss_zero_mask"), rtol=RTOL, atol=0)
    yield close(
        "grad_model_pred", gradient, golden.expected("grad_model_pred"), rtol=RTOL, atol=GRADIENT_ATOL
    )


def _dropout(golden: Golden) -> Iterator[Row]:
    probability = golden.sidecar["conditioning_dropout_prob"]
    keep_token, keep_image = kept_conditions(golden["dropout_draws"], probability)
    yield exact("dropout_keep_clip_token", keep_token.float(), golden.expected("dropout_keep_clip_token"))
    yield exact(
        "dropout_keep_image_latents", keep_image.float(), golden.expected("dropout_keep_image_latents")
    )


@case("train_frame_sampling")
def train_frame_sampling(golden: Golden) -> Iterator[Row]:
    for row in golden.sidecar["table"]:
        length, start = row["video_length"], row["start"]
        num_frames, stride = row["n_sample_frames"], row["sample_frame_rate"]
        reach = clip_length(length, num_frames, stride)
        frames = clip_frames(length, start, num_frames, stride)
        ours = {
            "clip_length": reach,
            "start_max_inclusive": length - reach,
            "frames": list(frames),
            "reference_candidates": len(reference_candidates(length, frames)),
        }
        label = f"{num_frames} of {length} from {start}"
        for name, value in ours.items():
            yield exact(f"{label}: {name}", value, row[name])
