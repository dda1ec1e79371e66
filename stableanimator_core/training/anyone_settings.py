"""What only Animate Anyone's training is told: `[anyone]` of the TOML file, and the published values of each stage.

Paper: Hu et al., Animate Anyone, arXiv:2311.17117. Values: MooreThreads/Moore-AnimateAnyone @ a914ef3,
`train_stage_1.py`, `train_stage_2.py` and their configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..animate_anyone.ddim import Spacing

DroppedToken = Literal["empty picture", "zeros"]
STAGE_DEFAULTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "data": {"num_frames": 1},
        "training": {"steps": 30_000, "batch_size": 4},
        "anyone": {"crop_scale": 0.9},
    },
    2: {
        "data": {"num_frames": 24, "stride": 4},
        "training": {"steps": 10_000, "batch_size": 1, "gradient_checkpointing": True},
        "anyone": {"crop_scale": 1.0},
    },
}
_BOTH = {
    "identity": {"provider": "zeros"},
    "optimizer": {"max_grad_norm": 1.0},
    "validation": {"num_frames": 24, "guidance": 3.5},
}


@dataclass(frozen=True)
class Anyone:
    """Animate Anyone's networks, noise, dropout and cuts.

    Attributes:
        start: a checkpoint, or a run of which the last one counts; files that are not named are taken from it.
        denoising_unet: file to start from, also an image U-Net of Stable Diffusion; left out: new, of the form that
            `networks.unet_config` says (diffusers' UNet2DConditionModel).
        reference_unet: likewise; left out: a copy of what the denoising U-Net starts from.
        pose_guider: file to start from, also an OpenPose ControlNet whose first convolutions are taken; left out: new.
        motion_module: file to start from in stage 2; left out: those in `denoising_unet`, else new ones.
        pose_guider_config: `widths` and `form` of a new pose guider, see `pose_guider.build_pose_guider`.
        motion_config: `heads`, `max_frames`, `num_blocks`, `num_attentions`, `mid_block` of new motion modules.
        betas: spacing of the noise schedule. Official: "scaled_linear", although sampling uses "linear".
        noise_offset: strength of the noise that a whole channel of a sample has in common.
        snr_gamma: bound of the loss's weight, see `anyone_loss.loss_weight`; 0 weighs all times alike.
        dropped_token: what stands for the image token where conditions are dropped. Official: CLIP of an empty
            picture, although sampling uses zeros.
        min_distance: frames between reference and target in stage 1, where the clip is long enough.
        crop_scale, crop_ratio: least share of the area, and least width to height of the cut relative to the
            picture's, of random cuts; 1 and 1 take the whole picture. A cache holds whole pictures only.
    """

    start: Path | None = None
    denoising_unet: Path | None = None
    reference_unet: Path | None = None
    pose_guider: Path | None = None
    motion_module: Path | None = None
    pose_guider_config: dict[str, Any] = field(default_factory=dict)
    motion_config: dict[str, Any] = field(default_factory=dict)
    betas: Spacing = "scaled_linear"
    noise_offset: float = 0.05
    snr_gamma: float = 5.0
    dropped_token: DroppedToken = "empty picture"
    min_distance: int = 30
    crop_scale: float = 1.0
    crop_ratio: float = 0.9


def with_defaults(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tables of a file with the published values of its stage where it says nothing; others' files as they are."""
    stage = tables.get("stage", 1)
    if tables.get("system") != "animate-anyone" or stage not in STAGE_DEFAULTS:
        return tables
    result = dict(tables)
    for defaults in (_BOTH, STAGE_DEFAULTS[stage]):
        for name, values in defaults.items():
            given = result.get(name, {})
            if isinstance(given, Mapping):
                result[name] = {**values, **given}
    return result
