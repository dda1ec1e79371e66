"""Tiny settings of Animate Anyone's training, on the data and frozen networks of `training_data`."""

from pathlib import Path

import training_data

from stableanimator_core import demo_weights
from stableanimator_core.training.config import parse_settings

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
    "cross_attention_dim": demo_weights.TOKEN_WIDTH,
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
ANYONE = {
    "pose_guider_config": {"widths": [4, 8, 8, 8]},
    "motion_config": {"heads": 2, "max_frames": 8},
    "crop_scale": 1.0,
}


def tables(root: Path, weights: Path, output: Path, stage: int = 1, **changes) -> dict:
    """A configuration of either stage that trains in seconds; `changes` are merged into its tables."""
    result = training_data.tables(root, weights, output)
    result |= {"system": "animate-anyone", "stage": stage, "anyone": dict(ANYONE)}
    result["data"]["num_frames"] = 1 if stage == 1 else 3
    result["networks"] = {"svd": str(weights / "SVD"), "unet_config": UNET}
    result["identity"] = {"provider": "zeros"}
    result["training"] |= {"trainable": "official", "batch_size": 2, "steps": 3}
    for name, table in changes.items():
        result[name] = {**result.get(name, {}), **table} if isinstance(table, dict) else table
    return result


def settings(root: Path, weights: Path, output: Path, stage: int = 1, **changes):
    return parse_settings(tables(root, weights, output, stage, **changes), output)
