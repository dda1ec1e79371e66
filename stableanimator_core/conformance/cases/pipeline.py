"""pipeline_a/b/c stage by stage, sigmas, windows, CLIP preprocessing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ... import conditioning as cond
from ...decode import DecodeOptions
from ...guidance import GuidedDenoiser, guidance_per_frame
from ...models.vae import SCALING_FACTOR, decode_frames
from ...pipeline import AnimationOptions, Animator
from ...preprocess import clip_pixels, pose_pixels, reference_pixels
from ...sigmas import initial_noise_scale, karras_sigmas, sample_euler, timestep_of
from ...windows import anchored_windows, repeat_noise, triangular_weights
from ..checks import Row, absolute, case, close, differing_share, exact, relative
from ..golden import Golden


@case("sigmas")
def sigmas(golden: Golden) -> Iterator[Row]:
    for name in golden.tensors:
        kind, _, steps = name.rpartition("_")
        ours = karras_sigmas(int(steps))
        if kind == "sigmas":
            yield close(name, ours, golden.expected(name), rtol=1e-6, atol=1e-12)
        elif kind == "timesteps":
            yield close(name, timestep_of(ours[:-1]), golden.expected(name), rtol=1e-5, atol=1e-6)
        else:
            yield close(name, initial_noise_scale(ours)[None], golden.expected(name), rtol=1e-6, atol=0)


@case("windows")
def windows(golden: Golden) -> Iterator[Row]:
    for row in golden.sidecar["table"]:
        frames, size, overlap = row["num_frames"], row["tile_size"], row["tile_overlap"]
        if row["outcome"] != "ok":
            continue  # the official code crashes or gives NaN there; tests show what ours does instead
        ours = anchored_windows(frames, size, overlap)
        yield exact(f"{frames} frames, {size}/{overlap}", ours, row["windows"])
        sums = torch.zeros(frames)
        for window in ours:
            sums[window] += triangular_weights(size)
        yield absolute(
            f"{frames} frames, {size}/{overlap}: sums", sums, torch.tensor(row["weight_sums"]), 1e-6
        )
    for size, weights in golden.sidecar["weights"].items():
        yield absolute(f"weights of {size}", triangular_weights(int(size)), torch.tensor(weights), 1e-6)


@case("clip_preprocess")
def clip_preprocess(golden: Golden) -> Iterator[Row]:
    for name, expected in golden.tensors.items():
        number = name.split("_")[2]
        pixels = clip_pixels(
            np.array(Image.open(golden.folder / f"clip_preprocess_{number}.png").convert("RGB"))
        )
        if name.endswith("stride5"):
            pixels = pixels[..., ::5, ::5]
        elif name.endswith("corner"):
            pixels = pixels[..., :24, :24]
        yield absolute(name, pixels, expected, 1e-4)


@case("pipeline_*")
def pipeline(golden: Golden) -> Iterator[Row]:
    """Every stored stage, each from our own stage before it."""
    animator = animator_of(golden)
    run = golden.sidecar["run"]
    options = options_of(run)
    image = golden["input_image"].numpy()

    if "clip_pixel_values" in golden.tensors:
        yield absolute("clip_pixel_values", clip_pixels(image), golden.expected("clip_pixel_values"), 1e-4)
    pixels = reference_pixels(image, run["height"], run["width"])
    yield absolute("image_preprocessed", pixels, golden.expected("image_preprocessed"), 1e-6)
    if "image_noised" in golden.tensors:
        noised = cond.augment(pixels, golden["image_noise"], run["noise_aug_strength"])
        yield absolute("image_noised", noised, golden.expected("image_noised"), 1e-6)

    embedding = animator.image_embedding(image)
    yield relative("image_embedding", embedding[0], golden.expected("image_embedding"), 5e-5)
    face_tokens = animator.face_tokens(golden["id_embedding"], embedding, fuse=True)
    assert face_tokens is not None
    yield relative("face_tokens", face_tokens, golden.expected("face_tokens"), 5e-5)
    both = animator.condition(image, golden["id_embedding"], golden["image_noise"], options).both_halves()
    yield relative("image_latents", both.image_latents, golden.expected("image_latents"), 5e-5)
    yield relative("encoder_hidden_states", both.tokens, golden.expected("encoder_hidden_states"), 5e-5)
    yield exact("added_time_ids", both.added_time_ids, golden.expected("added_time_ids"))
    yield from _sampling(golden, animator, both, options)


def _sampling(
    golden: Golden, animator: Animator, both: cond.Conditioning, options: AnimationOptions
) -> Iterator[Row]:
    run = golden.sidecar["run"]
    poses = golden["pose_images"].numpy()
    denoiser = GuidedDenoiser(
        unet=animator.unet,
        conditioning=both,
        pose_features=animator.pose_features(pose_pixels(poses, run["height"], run["width"])),
        windows=anchored_windows(len(poses), options.window_size, options.overlap),
        guidance=guidance_per_frame(*options.guidance, len(poses)),
    )
    first = denoiser.windows[0]
    yield exact("window_indices", torch.tensor(denoiser.windows), golden.expected("window_indices"))
    yield relative(
        "pose_latents_window0", denoiser.pose_features[first], golden.expected("pose_latents_window0"), 5e-5
    )
    yield absolute("guidance_scale", denoiser.guidance, golden.expected("guidance_scale"), 1e-6)

    levels = karras_sigmas(options.num_steps)
    yield close("sigmas", levels, golden.expected("sigmas"), rtol=1e-6, atol=1e-12)
    start = repeat_noise(golden["latent_noise"][0], len(poses)) * initial_noise_scale(levels)
    yield relative("initial_latents", start[None], golden.expected("initial_latents"), 1e-6)
    if "unet_in_step0_window0" in golden.tensors:
        unet_in = denoiser.unet_input(start, levels[0], first)
        yield relative("unet_in_step0_window0", unet_in, golden.expected("unet_in_step0_window0"), 5e-5)
    unet_out = [torch.stack(denoiser.predict_window(start, levels[0], window)) for window in denoiser.windows]
    yield relative("unet_out_step0", torch.stack(unet_out), golden.expected("unet_out_step0"), 5e-5)

    latents, outputs = _steps(denoiser, start, levels)
    for step, (after, output) in enumerate(zip(latents, outputs, strict=True)):
        yield relative(f"model_output[{step}]", output[None], golden.expected("model_output")[step], 1e-4)
        yield relative(
            f"latents_after_step[{step}]", after[None], golden.expected("latents_after_step")[step], 1e-4
        )
    yield from _frames(golden, animator, latents[-1], options)


def _steps(denoiser: GuidedDenoiser, start: Tensor, levels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Latents after each step, and the guided v-prediction of each step."""
    entering: list[Tensor] = []
    outputs: list[Tensor] = []

    def recording(latents: Tensor, sigma: Tensor, step: int) -> Tensor:
        entering.append(latents)
        outputs.append(denoiser.v_prediction(latents, sigma))
        return latents / (sigma**2 + 1) - outputs[-1] * (sigma / (sigma**2 + 1) ** 0.5)

    final = sample_euler(recording, start, levels)
    return [*entering[1:], final], outputs


def _frames(golden: Golden, animator: Animator, latents: Tensor, options: AnimationOptions) -> Iterator[Row]:
    chunk = options.decode.chunk
    decoded = torch.cat(
        [decode_frames(animator.vae, part / SCALING_FACTOR, len(part)) for part in latents.split(chunk)]
    )
    if "decoded_frames" in golden.tensors:
        yield relative(
            "decoded_frames", decoded.transpose(0, 1)[None], golden.expected("decoded_frames"), 1e-4
        )
    if "decoded_subset" in golden.tensors:
        subset = decoded[golden["decoded_subset_frames"]]
        yield relative("decoded_subset", subset, golden.expected("decoded_subset"), 1e-4)
    frames = torch.from_numpy(animator.decode(latents, options.decode)).float()
    expected = golden.expected("frames_uint8")
    yield absolute("frames_uint8: levels", frames, expected, 1.0)
    yield differing_share("frames_uint8: share off by one", frames, expected, beyond=0.5, tolerance=0.01)


def options_of(run: dict) -> AnimationOptions:
    """A sidecar's run settings as ours."""
    return AnimationOptions(
        num_steps=run["num_inference_steps"],
        guidance=(run["min_guidance_scale"], run["max_guidance_scale"]),
        window_size=run["tile_size"],
        overlap=run["tile_overlap"],
        fps=run["fps_argument"],
        motion_bucket_id=run["motion_bucket_id"],
        noise_augmentation=run["noise_aug_strength"],
        decode=DecodeOptions(chunk=run["decode_chunk_size"]),
    )


def animator_of(golden: Golden) -> Animator:
    """The five tiny networks of a pipeline golden, filled by the recipe and its overrides."""
    from ...models.face_encoder import FaceEncoder
    from ...models.image_encoder import build_image_encoder
    from ...models.pose_net import PoseNet
    from ...models.unet import build_unet
    from ...models.vae import build_vae

    side = golden.sidecar
    face = side["face_encoder_config"]
    overrides: dict[str, dict[str, float]] = {}
    for path, value in side.get("overrides_after_recipe", {}).items():
        network, _, key = path.partition(".")
        overrides.setdefault(network, {})[key] = value
    face_encoder = FaceEncoder(
        face["cross_attention_dim"],
        face["id_embeddings_dim"],
        face["clip_embeddings_dim"],
        face["num_tokens"],
    )
    return Animator(
        unet=golden.fill(build_unet(side["unet_config"]), overrides.get("unet")),
        pose_net=golden.fill(
            PoseNet(side["pose_net_config"]["noise_latent_channels"]), overrides.get("pose_net")
        ),
        face_encoder=golden.fill(face_encoder, overrides.get("face_encoder")),
        vae=golden.fill(build_vae(side["vae_config"]), overrides.get("vae")),
        image_encoder=golden.fill(
            build_image_encoder(side["image_encoder_config"]), overrides.get("image_encoder")
        ),
    )
