"""Animate Anyone on tiny random networks, through the nodes, for their tests."""

from __future__ import annotations

from types import SimpleNamespace

import torch

WIDTH, HEIGHT = 72, 80  # no multiple of 64
UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
MAX_FRAMES = 8
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
}
IMAGE_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 56,
    "projection_dim": 24,
    "hidden_act": "quick_gelu",
}
NAMES = ("model", "clip_vision", "vae", "reference_net", "pose_guider")


def system(pack, seed: int = 0, max_frames: int = MAX_FRAMES):
    """The core's five networks with weights that are nowhere zero."""
    core = lambda name: pack.module(f"stableanimator_core.{name}")  # noqa: E731
    unets, nets, guiders = (
        core(f"animate_anyone.{name}") for name in ("denoising_unet", "reference_net", "pose_guider")
    )
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        made = core("animate_anyone.pipeline").AnimateAnyone(
            unets.build_denoising_unet({**UNET, unets.MOTION: {"max_frames": max_frames}}),
            nets.build_reference_net(UNET),
            guiders.PoseGuider(32, (8, 8, 8, 8)),
            core("models.vae").build_image_vae(VAE),
            core("models.image_encoder").build_image_encoder(IMAGE_ENCODER),
        )
        for network in (made.denoising_unet, made.reference_net, made.pose_guider):
            for parameter in network.parameters():
                spread = 0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.data += torch.randn_like(parameter) * spread
        for network in vars(made).values():
            network.eval().requires_grad_(False)
    return made


def sockets(pack, made, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """What the loader node gives for these networks, image encoder in float32."""
    from comfy.cli_args import args

    args.fp32_text_enc = True  # core stores image encoders in float16
    try:
        outputs = pack.module("nodes.anyone_loader").sockets_of(made, dtype, dtype)
    finally:
        args.fp32_text_enc = False
    return SimpleNamespace(**dict(zip(NAMES, outputs, strict=True)))


def photo() -> torch.Tensor:
    return torch.rand(1, 90, 70, 3, generator=torch.Generator().manual_seed(1))


def skeletons(frames: int) -> torch.Tensor:
    return torch.rand(frames, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(2))


def noise_of(frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(frames, 4, HEIGHT // 8, WIDTH // 8, generator=generator)


def clip(pack, models, frames: int = 3, *, poses: torch.Tensor | None = None, **changes) -> SimpleNamespace:
    """Conditioning and latent of a short clip."""
    values = {"image": photo(), "width": WIDTH, "height": HEIGHT, "official_rounding": False, **changes}
    pictures = skeletons(frames) if poses is None else poses
    with torch.inference_mode():
        positive, negative, latent = pack.ReferenceNetEncode.execute(
            models.reference_net, models.clip_vision, models.vae, num_frames=frames, **values
        ).args
        positive, negative = pack.ApplyPoseGuider.execute(
            positive, negative, models.pose_guider, pictures, 1.0, 0.0, 1.0
        ).args
    return SimpleNamespace(positive=positive, negative=negative, latent=latent)


def ksample(core_comfy, model, made, *, steps=2, sampler="euler", scheduler="simple", cfg=3.5, seed=5):
    with torch.inference_mode():
        result = core_comfy.KSampler().sample(
            model, seed, steps, cfg, sampler, scheduler, made.positive, made.negative, made.latent
        )
    return result[0]["samples"]


def custom(pack, model, made, noise: torch.Tensor, steps: int, cfg: float, sampler=None) -> torch.Tensor:
    """SamplerCustomAdvanced with DDIM Trailing, from this noise [f 4 h w]."""
    from comfy_extras import nodes_custom_sampler as nodes

    class Given:
        seed = 0

        def generate_noise(self, latent):
            return noise

    with torch.inference_mode():
        own, sigmas = pack.DDIMTrailing.execute(model, steps).args
        guider = nodes.CFGGuider.execute(model, made.positive, made.negative, cfg)[0]
        result = nodes.SamplerCustomAdvanced.execute(Given(), guider, sampler or own, sigmas, made.latent)
    return result[0]["samples"]


def largest(difference: torch.Tensor, of: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float(difference.abs().max() / of.abs().max())
