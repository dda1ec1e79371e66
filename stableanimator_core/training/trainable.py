"""Which parameters training moves, and where the ID adapter starts.

Paper: Tu et al., StableAnimator, arXiv:2411.17697.
Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2. PoseNet and FaceEncoder start as their
constructors leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ..errors import InputError
from ..models.id_adapter import IDAdapter


def trains(name: str) -> bool:
    """Whether the U-Net's parameter of this name is trained: all transformers, with the adapter.

    Residual blocks, first and last convolution, embeddings and down- and upsamplers stay as SVD has them.
    """
    return "attentions" in name


def choose_trainable(
    unet: nn.Module,
    pose_net: nn.Module,
    face_encoder: nn.Module,
    *,
    what: Literal["official", "all"] = "official",
) -> None:
    """Set `requires_grad` of every parameter: all of PoseNet and FaceEncoder, of the U-Net what `trains`.

    Args:
        unet: from `build_unet`.
        pose_net: likewise changed in place.
        face_encoder: likewise.
        what: "all" trains the whole U-Net, for one that does not start from Stable Video Diffusion.
    """
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(what == "all" or trains(name))
    pose_net.requires_grad_(True)
    face_encoder.requires_grad_(True)


def freeze(networks: nn.Module, names: Sequence[str]) -> None:
    """Let the named parts stand still, in place.

    Args:
        networks: all that may learn, as children with names.
        names: such as "face_encoder".

    Raises:
        InputError: there is no such part.
    """
    parts = dict(networks.named_children())
    for name in names:
        if name not in parts:
            raise InputError("training.frozen", f"has '{name}'", f"name some of {', '.join(parts)}")
        parts[name].requires_grad_(False)


@torch.no_grad()
def start_adapter_from_image_attention(unet: nn.Module) -> None:
    """Copy to_k and to_v of every spatial cross-attention into its adapter's id_to_k and id_to_v, in place.

    Raises:
        ValueError: the network has no ID adapter.
    """
    layers: list[Any] = [m for m in unet.modules() if isinstance(getattr(m, "processor", None), IDAdapter)]
    if not layers:
        raise ValueError("the U-Net has no ID adapter; make it with build_unet")
    for attention in layers:
        attention.processor.id_to_k.weight.copy_(attention.to_k.weight)
        attention.processor.id_to_v.weight.copy_(attention.to_v.weight)
