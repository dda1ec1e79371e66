"""How many groups the group norms of a narrow network have; Stable Video Diffusion's 32 would be one per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

KEY = "norm_num_groups"
"""Name of the number in a configuration, as in diffusers' image networks; its video networks have none."""


def split_groups(config: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """The configuration without the number of groups and without entries starting with "_", and the number."""
    rest = {key: value for key, value in config.items() if key != KEY and not key.startswith("_")}
    return rest, config.get(KEY)


def set_groups(network: Any, groups: int | None) -> None:
    """Give every group norm of a diffusers network this many groups, and note it in its config; None leaves them."""
    if groups is None:
        return
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            if module.num_channels % groups:
                raise ValueError(f"{module.num_channels} channels do not divide into {groups} groups")
            module.num_groups = groups
    network.register_to_config(**{KEY: groups})
