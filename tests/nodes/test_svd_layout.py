"""The single file's layout against ComfyUI's own classes: the same numbers give the same pictures."""

from __future__ import annotations

import pytest
import torch

from stableanimator_core.models.image_encoder import build_image_encoder
from stableanimator_core.models.vae import build_vae, decode_frames, encode_mode
from stableanimator_core.weights import svd_layout

VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "block_out_channels": [32, 64, 64],
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def modules(core_comfy):
    """ComfyUI's modules of CLIP vision and of the autoencoders."""
    import comfy.clip_vision
    import comfy.ldm.models.autoencoder as autoencoder

    return comfy.clip_vision, autoencoder


def comfy_vae(autoencoder, layers: int):
    """ComfyUI's video VAE as its loader makes it for svd_xt.safetensors, but narrow."""
    encoder = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": layers,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    decoder = encoder | {"video_kernel_size": [3, 1, 1], "alpha": 0.0}
    return autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": "comfy.ldm.modules.diffusionmodules.model.Encoder", "params": encoder},
        decoder_config={"target": "comfy.ldm.modules.temporal_ae.VideoDecoder", "params": decoder},
    )


def randomised(network):
    """Random weights everywhere, so that no layer is neutral and every mix is uneven."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, value in network.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        fan_in = max(1, value[0].numel()) if value.ndim else 1
        state[key] = noise / fan_in**0.5 if value.ndim >= 2 else 1 + 0.2 * noise if "norm" in key else noise
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def relative(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("layers", [1, 2])
def test_comfyui_s_video_vae_takes_ours(modules, layers):
    ours = randomised(build_vae(VAE | {"layers_per_block": layers}))
    theirs = comfy_vae(modules[1], layers)
    theirs.load_state_dict(svd_layout.vae_to_single_file(ours.state_dict()), strict=True)
    compare_vaes(ours, theirs)


def test_ours_takes_comfyui_s_video_vae(modules):
    theirs = randomised(comfy_vae(modules[1], 2))
    ours = build_vae(VAE | {"layers_per_block": 2}).eval().requires_grad_(False)
    ours.load_state_dict(svd_layout.vae_to_diffusers(theirs.state_dict()), strict=True)
    compare_vaes(ours, theirs)


def compare_vaes(ours, theirs):
    generator = torch.Generator().manual_seed(4)
    pixels = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    latents = torch.randn(5, 4, 8, 8, generator=generator)
    with torch.no_grad():
        moments = theirs.encoder(pixels)
        assert relative(encode_mode(ours, pixels), moments.chunk(2, dim=1)[0]) < 1e-5
        assert relative(decode_frames(ours, latents, 5), theirs.decode(latents)) < 1e-5
        alone = torch.cat([decode_frames(ours, latent, 1) for latent in latents.split(1)])
        assert relative(alone, theirs.decode(latents)) > 1e-2, (
            "time does not matter here, so nothing is shown"
        )


@pytest.mark.parametrize("path", ["single file", "transformers names"])
def test_comfyui_s_clip_vision_gives_our_image_embedding(modules, path, tmp_path):
    clip_vision = modules[0]
    config = {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_channels": 3,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 48,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }
    ours = randomised(build_image_encoder({k: v for k, v in config.items() if k != "model_type"}))
    state = ours.state_dict()
    if path == "single file":
        there = svd_layout.image_encoder_to_single_file(state)
        state = clip_vision.convert_to_transformers({f"visual.{k}": v for k, v in there.items()}, "visual.")
    import comfy.clip_model
    import comfy.ops

    theirs = comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "cpu", comfy.ops.manual_cast)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not missing
    assert not unexpected
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels)[2]
        assert relative(ours(pixels).image_embeds, wanted) < 1e-5
