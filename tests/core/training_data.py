"""A tiny data set and tiny networks on disk, for the tests of the trainer."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stableanimator_core import demo_weights
from stableanimator_core.training.config import parse_settings

SIDE = 64
UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [32, 32],
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    "num_attention_heads": [2, 2],
    "cross_attention_dim": demo_weights.TOKEN_WIDTH,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "layers_per_block": 1,
}


def write_clip(folder: Path, frames: int, *, side: int = SIDE, seed: int = 0) -> Path:
    """A clip folder: coloured noise, a bar as the pose, a square as the face."""
    random = np.random.RandomState(seed)
    for name in ("images", "poses", "faces"):
        (folder / name).mkdir(parents=True)
    colour = random.randint(0, 255, 3)
    for frame in range(frames):
        picture = np.clip(colour + random.randint(-40, 40, (side, side, 3)), 0, 255).astype(np.uint8)
        pose = np.zeros((side, side, 3), np.uint8)
        pose[:, 4 * frame % side] = 255
        face = np.zeros((side, side), np.uint8)
        face[8:40, 8 + frame : 40 + frame] = 255
        Image.fromarray(picture).save(folder / "images" / f"frame_{frame}.png")
        Image.fromarray(pose).save(folder / "poses" / f"frame_{frame}.png")
        Image.fromarray(face).save(folder / "faces" / f"frame_{frame}.png")
    return folder


def write_data(root: Path, lengths=(6, 7, 8, 6), *, side: int = SIDE) -> Path:
    """`root/rec/00001` and so on."""
    for number, frames in enumerate(lengths, start=1):
        write_clip(root / "rec" / f"{number:05}", frames, side=side, seed=number)
    return root


def write_networks(folder: Path) -> Path:
    """The demo weights: SVD's VAE and CLIP, and the recogniser."""
    demo_weights.write(folder, seed=1)
    return folder


def tables(root: Path, weights: Path, output: Path, **changes) -> dict:
    """A configuration that trains in seconds; `changes` are merged into its tables."""
    result = {
        "output": str(output),
        "data": {
            "root": str(root),
            "buckets": [{"folder": "rec", "width": SIDE, "height": SIDE}],
            "num_frames": 3,
            "stride": 1,
            "workers": 0,
        },
        "networks": {
            "start": "config",
            "svd": str(weights / "SVD"),
            "unet_config": UNET,
            "face_encoder_config": {"depth": 1},
        },
        "identity": {"provider": "mask", "recogniser": str(weights / "face_recognizer.safetensors")},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"steps": 2, "trainable": "all", "device": "cpu", "mixed_precision": "no"},
        "checkpoints": {"every": 100},
        "log": {"every": 1},
    }
    for name, table in changes.items():
        result[name] = {**result.get(name, {}), **table} if isinstance(table, dict) else table
    return result


def settings(root: Path, weights: Path, output: Path, **changes):
    return parse_settings(tables(root, weights, output, **changes), output)


def state_of(folder: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{part}.pth", weights_only=True)


def loaded(path: Path) -> dict:
    """The tensors of a checkpoint's file: accelerate's optimiser, or safetensors."""
    if path.suffix == ".bin":
        return torch.load(path, weights_only=True)["state"]
    from safetensors.torch import load_file

    return load_file(path)


def start_of(settings) -> dict[str, torch.Tensor]:
    """The weights that a run with these settings starts from."""
    from stableanimator_core.training.networks import build_networks

    return build_networks(settings).state_dict()


def as_toml(tables: dict, name: str = "") -> str:
    """The few kinds of values that the tests use."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    text = f"[{name}]\n" if name else ""
    text += "".join(f"{key} = {_toml_value(value)}\n" for key, value in plain.items())
    for key, value in tables.items():
        if isinstance(value, dict):
            text += as_toml(value, f"{name}.{key}" if name else key)
    return text


def _toml_value(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)
