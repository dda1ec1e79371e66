"""hjb_a, hjb_b: one scheduler step with face optimisation, every stage of every iteration.

Goldens README 3.9; the face network is the small one of 3.6. Axes: f frames, h w latents, H W pixels, e identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ...hjb.crop import displayed, face_crop
from ...hjb.decoder import Decoding
from ...hjb.identity_loss import SCALING_FACTOR, IdentityLoss, faces_of_clip, pixels_of
from ...hjb.options import HJBOptions, Setting
from ...hjb.refine import refine_x0
from ...hjb.regions import Box
from ...sigmas import predicted_x0
from ..checks import Row, absolute, case, differing_share, relative
from ..golden import Golden

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
    from diffusers import AutoencoderKLTemporalDecoder

    vae = golden.fill(AutoencoderKLTemporalDecoder(**golden.sidecar["vae_config"]))
    embedder = golden.fill(SmallEmbedder())
    faces = faces_of_clip(inclusive_boxes(boxes), *pixels_of(latents))
    setting = Setting(checkpointing="activations", chunk=chunk, dtype=torch.float32)
    return IdentityLoss(vae.decoder, embedder, golden["reference_embedding"], faces, setting)  # type: ignore


@case("hjb_a", "hjb_b")
def hjb(golden: Golden) -> Iterable[Row]:
    side = golden.sidecar
    sigma, next_sigma, sample = golden["sigma"], golden["sigma_next"], golden["sample"]
    x0 = predicted_x0(sample, golden["model_output"], sigma)
    yield relative("z0_initial", x0, golden["z0_initial"], 1e-6)
    yield relative("pred_original_no_refine", x0, golden["pred_original_no_refine"], 1e-6)
    learning_rate = HJBOptions().learning_rate_at(side["step_index"], side["num_inference_steps"])
    yield absolute("learning_rate", torch.tensor(learning_rate), torch.tensor(side["learning_rate"]), 1e-12)
    loss = golden_loss(golden, golden["boxes"], x0[0], side["decode_chunk_size"])
    yield from _first_pictures(golden, loss, x0[0])
    trace = _Trace(loss)
    refined = refine_x0(x0[0], trace, iterations=side["num_optimization_iter"], learning_rate=learning_rate)
    yield from _iterations(golden, trace, refined)
    euler = partial(_euler, sample=sample, sigma=sigma, next_sigma=next_sigma)
    yield from _z0_rows("prev_sample", euler(refined[None]), golden["prev_sample"])
    yield relative("prev_sample_no_refine", euler(x0), golden["prev_sample_no_refine"], 1e-6)


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
    yield relative("decoded_iter0", decoded, golden["decoded_iter0"], 5e-5)
    faces = [face_crop(displayed(decoded)[frame], loss.faces.boxes[frame][0]) for frame in range(2)]
    crops = golden["crops_iter0_first_frames"]
    yield relative("crops_iter0_first_frames", torch.cat(faces)[: len(crops)], crops, 5e-5)


def _iterations(golden: Golden, trace: _Trace, refined: Tensor) -> Iterable[Row]:
    after = [*trace.latents[1:], refined]
    for index, z0 in enumerate(after):
        yield absolute(f"loss_iter[{index}]", trace.losses[index], golden["loss_iter"][index], 1e-5)
        yield absolute(f"cosine_iter[{index}]", trace.cosines[index], golden["cosine_iter"][index], 1e-5)
        embeddings, gradients = golden["embedding_iter"][index], golden["grad_iter"][index]
        yield relative(f"embedding_iter[{index}]", trace.embeddings[index], embeddings, 1e-4)
        yield relative(f"grad_iter[{index}]", trace.gradients[index][None], gradients, 1e-4)
        yield from _z0_rows(f"z0_after_iter[{index}]", z0[None], golden["z0_after_iter"][index])


def _z0_rows(name: str, got: Tensor, expected: Tensor) -> Iterable[Row]:
    mean = (
        float((got.double() - expected.double()).abs().mean())
        if got.shape == expected.shape
        else float("nan")
    )
    yield Row(f"{name} mean", mean, Z0_MEAN, "mean abs")
    yield differing_share(name, got, expected, beyond=Z0_BEYOND, tolerance=Z0_SHARE)


def _euler(x0: Tensor, *, sample: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    return sample + (sample - x0) / sigma * (next_sigma - sigma)
