"""`motion_module.pth`: the motion modules of a whole network by themselves, as AnimateDiff's `mm_sd_v15_v2.ckpt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..models.unet import count_parts
from .motion_module import HEADS, MotionModule

_INSIDE = ".temporal_transformer."
_AS_WIDE_AS_THE_MODULE = ("norm.weight", "norm.bias", "proj_in.bias", "proj_out.bias")


class MotionFile(nn.Module):
    """Motion modules at their places and nothing else; made to check and to convert such a file.

    Args:
        widths: place of each module ("down_blocks.0.motion_modules.0") -> its channels.
        settings: heads, max_frames, num_blocks, num_attentions, norm_num_groups of `MotionModule`.
    """

    def __init__(self, widths: Mapping[str, int], **settings: int):
        super().__init__()
        for place, channels in widths.items():
            parent: nn.Module = self
            *path, name = place.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(name, MotionModule(channels, **settings))


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the `MotionFile` a state dict belongs to.

    Raises:
        KeyError: the state dict has no motion modules.
    """
    widths: dict[str, int] = {}
    for key, tensor in state.items():
        place, _, entry = key.partition(_INSIDE)
        if entry in _AS_WIDE_AS_THE_MODULE:
            widths[place] = tensor.shape[0]
    return {"widths": widths, **settings_of(state)}


def settings_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """heads, max_frames, num_blocks and num_attentions of the motion modules in a state dict.

    Raises:
        KeyError: it has none.
    """
    place = next((key.partition(_INSIDE)[0] for key in state if _INSIDE in key), None)
    tables = [tensor for key, tensor in state.items() if key.endswith(".pos_encoder.pe")]
    if place is None or not tables:
        raise KeyError("motion_modules")
    blocks = f"{place}{_INSIDE}transformer_blocks."
    return {
        "heads": HEADS,
        "max_frames": tables[0].shape[1],
        "num_blocks": count_parts(state, blocks),
        "num_attentions": count_parts(state, f"{blocks}0.attention_blocks."),
    }
