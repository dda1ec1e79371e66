"""CLIP's image encoder with projection, on transformers' CLIPVisionModelWithProjection.

Stable Video Diffusion uses OpenCLIP ViT-H/14 (exact GELU, heads of 80 channels); Animate Anyone uses OpenAI's
ViT-L/14 (quick GELU, heads of 64).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import WeightsError

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

_HEAD_WIDTHS = {768: 64, 1024: 64, 1280: 80, 1408: 88, 1664: 104}  # the published CLIP sizes, B to bigG
_OPENAI_WIDTHS = (768, 1024)


def config_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration, read from the shapes of a state dict in transformers' layout.

    Raises:
        WeightsError: the width is none of CLIP's, so the number of heads cannot be told.
    """
    patches = state["vision_model.embeddings.patch_embedding.weight"]
    positions = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    width, patch_size = patches.shape[0], patches.shape[-1]
    if width not in _HEAD_WIDTHS:
        problem = f"is {width} wide, so its number of attention heads cannot be told from its shapes"
        raise WeightsError(
            "image encoder", problem, "use one with its configuration in the metadata or config.json"
        )
    layers = {
        found[1] for key in state if (found := re.match(r"vision_model\.encoder\.layers\.(\d+)\.", key))
    }
    return {
        "hidden_size": width,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // _HEAD_WIDTHS[width],
        "image_size": math.isqrt(positions - 1) * patch_size,
        "patch_size": patch_size,
        "projection_dim": state["visual_projection.weight"].shape[0],
        "hidden_act": "quick_gelu" if width in _OPENAI_WIDTHS else "gelu",
    }


def build_image_encoder(config: Mapping[str, Any]) -> CLIPVisionModelWithProjection:
    """The network, with random weights; built on the meta device its position numbers are real all the same.

    Args:
        config: arguments of CLIPVisionConfig.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
    embeddings = model.vision_model.embeddings
    # The numbers are a buffer that no file carries, so loading could not fill it.
    embeddings.register_buffer(
        "position_ids", torch.arange(embeddings.num_positions, device="cpu")[None], persistent=False
    )
    return model
