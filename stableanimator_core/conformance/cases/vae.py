"""The VAE by itself: encoder, posterior mode, and the frame decoder in one and in two temporal groups."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...models.vae import build_vae, decode_frames, encode_mode
from ..checks import Row, case, relative
from ..golden import Golden

TOLERANCE = 5e-5


@case("vae")
def check_vae(golden: Golden) -> Iterator[Row]:
    vae = build_vae(golden.sidecar["config"])
    golden.fill(vae)
    posterior = vae.encode(golden["image"]).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
    yield relative("moments", moments, golden.expected("moments"), TOLERANCE)
    yield relative("mode", encode_mode(vae, golden["image"]), golden.expected("mode"), TOLERANCE)
    latents = golden["latents"]
    yield relative(
        "decoded_3", decode_frames(vae, latents, len(latents)), golden.expected("decoded_3"), TOLERANCE
    )
    chunks = torch.cat([decode_frames(vae, chunk, len(chunk)) for chunk in latents.split(2)])
    yield relative("decoded_chunks_2_1", chunks, golden.expected("decoded_chunks_2_1"), TOLERANCE)
