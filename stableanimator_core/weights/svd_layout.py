"""Stable Video Diffusion's two layouts of the same numbers, and the way from each to the other.

The single file (`svd_xt.safetensors`, Stability's generative-models; ComfyUI's own classes use these names)
and the diffusers folder differ in names, in linear layers stored as 1x1 convolutions, in fused projections,
and in where the `quant_conv` behind the encoder lives. All functions work on key -> tensor and copy nothing
that need not change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import WeightsError

_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
_TIME_STACK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VIDEO_RESNET = (
    {f"spatial_res_block.{ours}": theirs for ours, theirs in _RESNET.items()}
    | {f"temporal_res_block.{ours}": f"time_stack.{theirs}" for ours, theirs in _TIME_STACK.items()}
    | {"time_mixer": ""}  # holds `mix_factor`, which lies directly in the block in the single file
)
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_TOP = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.weight": "ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "ln_pre.bias",
    "vision_model.post_layernorm.weight": "ln_post.weight",
    "vision_model.post_layernorm.bias": "ln_post.bias",
}
_NEUTRAL_IF_ONE_LAYER = tuple(  # with zeros here the middle's attention and second block add nothing
    f"decoder.mid.{layer}.{leaf}"
    for layer in ("attn_1.proj_out", "block_2.conv2", "block_2.time_stack.out_layers.3")
    for leaf in ("weight", "bias")
)


def vae_to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From the single file's names (without `first_stage_model.`) to diffusers'.

    A missing `quant_conv` becomes the identity: there the encoder's last layer already holds it.

    Raises:
        WeightsError: a middle block that diffusers' network of this depth does not have.
    """
    levels = _count(state, r"encoder\.down\.(\d+)\.")
    layers = _count(state, r"encoder\.down\.0\.block\.(\d+)\.")
    theirs_to_ours = {theirs: ours for ours, theirs in _vae_modules(levels, layers).items()}
    result = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        if layers == 1 and key.startswith("decoder.mid.block_2."):
            _check_identity(state)
            continue
        ours = theirs_to_ours.get(module + "." if leaf == "mix_factor" else module, module)
        flat = tensor.ndim == 4 and ".attentions." in ours
        result[f"{ours}.{leaf}"] = tensor.flatten(1) if flat else tensor
    return _with_quant_conv(result)


def vae_to_single_file(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From diffusers' names to the single file's (without `first_stage_model.`), as ComfyUI's VAE takes them.

    `quant_conv` is multiplied into the encoder's last convolution, which changes no result.
    """
    levels = _count(state, r"encoder\.down_blocks\.(\d+)\.")
    layers = _count(state, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    modules = _vae_modules(levels, layers)
    result = {}
    for key, tensor in _fold_quant_conv(state).items():
        module, _, leaf = key.rpartition(".")
        theirs = modules.get(module, module)
        conv = tensor.ndim == 2 and ".attentions." in module
        result[f"{theirs.removesuffix('.')}.{leaf}"] = tensor[:, :, None, None] if conv else tensor
    if layers == 1:
        result |= _identity_block(result)
    return result


def image_vae_to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stable Diffusion's VAE in diffusers' present names.

    From the original ones (`decoder.mid.block_1`, as in `vae-ft-mse-840000-ema-pruned`), from diffusers' old ones of
    the middle's attention (query, key, value, proj_attn), or as it is.
    """
    modules: dict[str, str] = {}
    if "decoder.mid.block_1.norm1.weight" in state:
        levels = _count(state, r"encoder\.down\.(\d+)\.")
        layers = _count(state, r"encoder\.down\.0\.block\.(\d+)\.")
        modules = {theirs: ours for ours, theirs in _vae_modules(levels, layers, _RESNET).items()}
    result = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        ours = modules.get(module, module)
        place, _, name = ours.rpartition(".")
        if place.endswith("attentions.0"):
            ours = f"{place}.{_OLD_ATTENTION.get(name, name)}"
        flat = tensor.ndim == 4 and ".attentions." in ours
        result[f"{ours}.{leaf}"] = tensor.flatten(1) if flat else tensor
    return result


def image_encoder_to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From OpenCLIP's visual tower (keys without prefix) to transformers' CLIPVisionModelWithProjection."""
    top = {theirs: ours for ours, theirs in _CLIP_TOP.items()}
    block = {theirs: ours for ours, theirs in _CLIP_BLOCK.items()}
    result = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)(?:\.|_)(weight|bias)", key)
        if key == "proj":
            result["visual_projection.weight"] = tensor.T
        elif found is None:
            result[top.get(key, key)] = tensor
        elif found[2] == "attn.in_proj":
            for name, third in zip("qkv", tensor.chunk(3), strict=True):
                result[f"vision_model.encoder.layers.{found[1]}.self_attn.{name}_proj.{found[3]}"] = third
        else:
            result[f"vision_model.encoder.layers.{found[1]}.{block.get(found[2], found[2])}.{found[3]}"] = (
                tensor
            )
    return result


def image_encoder_to_single_file(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From transformers' CLIPVisionModelWithProjection to OpenCLIP's visual tower (keys without prefix)."""
    result = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if key == "visual_projection.weight":
            result["proj"] = tensor.T
        elif found is None:
            result[_CLIP_TOP.get(key, key)] = tensor
        elif found[2] == "self_attn.q_proj":
            thirds = [state[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            result[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}"] = torch.cat(thirds)
        elif found[2] not in ("self_attn.k_proj", "self_attn.v_proj"):
            name = _CLIP_BLOCK.get(found[2], found[2])
            result[f"transformer.resblocks.{found[1]}.{name}.{found[3]}"] = tensor
    return result


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for key in state if (found := re.match(pattern, key))})


def _vae_modules(levels: int, layers: int, decoder: Mapping[str, str] = _VIDEO_RESNET) -> dict[str, str]:
    """Every renamed module: diffusers' name -> the single file's.

    Args:
        levels: of the VAE.
        layers: residual blocks per level of the encoder.
        decoder: names inside the decoder's blocks, which are temporal in Stable Video Diffusion.
    """
    modules = {"decoder.time_conv_out": "decoder.conv_out.time_mix_conv"}

    def add(ours: str, theirs: str, leaves: Mapping[str, str]) -> None:
        modules.update({f"{ours}.{leaf}": f"{theirs}.{their_leaf}" for leaf, their_leaf in leaves.items()})

    for part, resnet in (("encoder", _RESNET), ("decoder", decoder)):
        modules[f"{part}.conv_norm_out"] = f"{part}.norm_out"
        add(f"{part}.mid_block.attentions.0", f"{part}.mid.attn_1", _ATTENTION)
        for index in range(2):
            add(f"{part}.mid_block.resnets.{index}", f"{part}.mid.block_{index + 1}", resnet)
    for level in range(levels):
        mirrored = levels - 1 - level  # the single file numbers the decoder's levels from the picture inwards
        modules[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        modules[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"decoder.up.{mirrored}.upsample.conv"
        for index in range(layers):
            add(
                f"encoder.down_blocks.{level}.resnets.{index}", f"encoder.down.{level}.block.{index}", _RESNET
            )
        for index in range(layers + 1):
            add(
                f"decoder.up_blocks.{level}.resnets.{index}",
                f"decoder.up.{mirrored}.block.{index}",
                decoder,
            )
    return modules


def _with_quant_conv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if "quant_conv.weight" not in state and "encoder.conv_out.bias" in state:
        bias = state["encoder.conv_out.bias"]
        identity = torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
        state |= {"quant_conv.weight": identity[:, :, None, None], "quant_conv.bias": torch.zeros_like(bias)}
    return state


def _fold_quant_conv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Q (W x + c) + d = (Q W) x + (Q c + d), exactly, because nothing lies between the two convolutions."""
    folded = dict(state)
    mixing, shift = folded.pop("quant_conv.weight", None), folded.pop("quant_conv.bias", None)
    if mixing is None or shift is None:
        return folded
    weight, bias = folded["encoder.conv_out.weight"], folded["encoder.conv_out.bias"]
    mixing = mixing.flatten(1).double()
    folded["encoder.conv_out.weight"] = torch.einsum("oi,ichw->ochw", mixing, weight.double()).to(
        weight.dtype
    )
    folded["encoder.conv_out.bias"] = (mixing @ bias.double() + shift.double()).to(bias.dtype)
    return folded


def _identity_block(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rest of the decoder's middle, adding nothing.

    The single file always has block, attention, block. diffusers has as many blocks as `layers`, and with one
    it never comes to its attention.
    """
    first, second = "decoder.mid.block_1.", "decoder.mid.block_2."
    block = {key.replace(first, second): tensor for key, tensor in state.items() if key.startswith(first)}
    block |= {key: state[key] for key in _NEUTRAL_IF_ONE_LAYER if key in state}
    return block | {key: torch.zeros_like(block[key]) for key in _NEUTRAL_IF_ONE_LAYER}


def _check_identity(state: Mapping[str, Tensor]) -> None:
    if any(bool(state[key].any()) for key in _NEUTRAL_IF_ONE_LAYER if key in state):
        problem = "has two middle blocks but one layer per level, a network that diffusers cannot build"
        raise WeightsError("VAE", problem, "use Stable Video Diffusion's VAE")
