"""Small networks and inputs that several tests share."""

import json
from pathlib import Path

import torch

from stableanimator_core.models.unet import build_unet

GOLDENS = Path(__file__).parents[1] / "goldens"
TINY = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (32, 64, 64, 64),
    "num_attention_heads": (2, 4, 4, 4),
    "cross_attention_dim": 48,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
}


def official_keys(name):
    """Key -> shape of an official checkpoint."""
    return {
        key: tuple(shape) for key, shape in json.loads((GOLDENS / f"keys_{name}.json").read_text()).items()
    }


def on_meta(keys):
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def tiny_unet(*, seed=0, plain=False):
    torch.manual_seed(seed)
    unet = build_unet(TINY, plain=plain).eval()
    for parameter in unet.parameters():
        if parameter.ndim < 2:  # norms and biases start at 1 and 0, which would hide mistakes
            parameter.data += 0.2 * torch.randn_like(parameter)
    return unet


def unet_inputs(*, batch=1, frames=3, size=16, image_tokens=1, unconditional=False, seed=1):
    """Arguments of `denoise` after the network, and pose features."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, image_tokens + 4, TINY["cross_attention_dim"], generator=generator)
    if unconditional:
        tokens[0] = 0
    sample = torch.randn(batch, frames, 8, size, size, generator=generator)
    pose = torch.randn(batch * frames, 32, size, size, generator=generator)
    ids = torch.tensor([[6.0, 127.0, 0.02]]).expand(batch, 3)
    return (sample, torch.full((batch,), 0.3), tokens, ids), pose


def largest_error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())
