"""Stable Video Diffusion's U-Net, where training starts: from the single file or the diffusers folder.

Names of the single file: Stability-AI/generative-models, `sgm/modules/diffusionmodules/video_model.py`. Blocks are
numbered through there, down and up, and by level in diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..models.unet import config_from
from ..weights.files import Weights, read_weights
from ..weights.svd import configured, not_the_model

PREFIX = "model.diffusion_model."
_FILES = tuple(
    f"{folder}diffusion_pytorch_model{variant}"
    for folder in ("unet/", "")
    for variant in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
)
_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def read_svd_unet(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """The U-Net's state dict in diffusers' names (1428 keys), its configuration, and the file it is from.

    Raises:
        WeightsError: there is none, or it is another model.
    """
    path = _file_in(Path(path))
    weights = read_weights(path)
    state = {key.removeprefix(PREFIX): t for key, t in weights.state.items() if key.startswith(PREFIX)}
    if state or "input_blocks.0.0.weight" in weights.state:
        state = to_diffusers(state or weights.state)
        weights = Weights(state)  # the metadata of a file of several models tells nothing about the U-Net
        return state, configured(weights, path, _CLASS, config_from), path
    if "conv_in.weight" not in weights.state:
        raise not_the_model(path, "U-Net of Stable Video Diffusion", weights.state)
    return dict(weights.state), configured(weights, path, _CLASS, config_from), path


_CLASS = "UNetSpatioTemporalConditionModel"


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From the single file's names (without `model.diffusion_model.`) to diffusers'; the tensors stay the same.

    Raises:
        WeightsError: a name is none of this network's.
    """
    blocks = _block_names(state)
    return {_renamed(key, blocks): tensor for key, tensor in state.items()}


def _block_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Every numbered part of the single file -> diffusers' module."""
    names = {
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    level = layer = 0
    for block in range(1, _count(state, "input_blocks.")):
        if f"input_blocks.{block}.0.op.weight" in state:
            names[f"input_blocks.{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, layer = level + 1, 0
            continue
        names[f"input_blocks.{block}.0"] = f"down_blocks.{level}.resnets.{layer}"
        names[f"input_blocks.{block}.1"] = f"down_blocks.{level}.attentions.{layer}"
        layer += 1
    level = layer = 0
    for block in range(_count(state, "output_blocks.")):
        names[f"output_blocks.{block}.0"] = f"up_blocks.{level}.resnets.{layer}"
        names[f"output_blocks.{block}.1"] = f"up_blocks.{level}.attentions.{layer}"
        layer += 1
        for part in (1, 2):  # the upsampler comes after the attention, or in its place
            if f"output_blocks.{block}.{part}.conv.weight" in state:
                names[f"output_blocks.{block}.{part}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
                level, layer = level + 1, 0
    return names


def _renamed(key: str, blocks: Mapping[str, str]) -> str:
    module, _, leaf = key.rpartition(".")
    if module in _TOP:
        return f"{_TOP[module]}.{leaf}"
    found = re.match(r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d)(?:\.(.*))?$", module)
    if found is None:
        raise WeightsError("U-Net", f"has the unknown key {key}", "use Stable Video Diffusion's")
    place, inner = found[1], found[2] or ""
    if inner in ("op", "conv"):
        return f"{blocks[f'{place}.{inner}']}.{leaf}"
    ours = blocks.get(place)
    if ours is None:
        raise WeightsError("U-Net", f"has the unknown key {key}", "use Stable Video Diffusion's")
    return f"{ours}.{_inside(inner, attention='.attentions.' in ours)}.{leaf}"


def _inside(name: str, *, attention: bool) -> str:
    """A module within a residual block or a transformer."""
    if name == "time_mixer":
        return name
    if attention:
        name = re.sub(r"^time_stack\.", "temporal_transformer_blocks.", name)
        return {
            "time_pos_embed.0": "time_pos_embed.linear_1",
            "time_pos_embed.2": "time_pos_embed.linear_2",
        }.get(name, name)
    temporal = name.startswith("time_stack.")
    inner = name.removeprefix("time_stack.")
    return f"{'temporal' if temporal else 'spatial'}_res_block.{_RESNET.get(inner, inner)}"


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _file_in(path: Path) -> Path:
    """The U-Net's file in a diffusers folder; `path` itself if it is a file."""
    if not path.is_dir():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise WeightsError(
        str(path), f"holds no U-Net (looked for {', '.join(_FILES)})", "name SVD's folder or file"
    )
