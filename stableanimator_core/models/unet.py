"""The denoising network: diffusers' Stable Video Diffusion U-Net with the distribution-aware ID adapter.

Papers: Tu et al., StableAnimator, arXiv:2411.17697; Blattmann et al., Stable Video Diffusion,
arXiv:2311.15127.
Layout of `unet.pth` (1460 keys: 1428 of SVD, 32 of the adapter): `animation/modules/unet.py`,
Francis-Rings/StableAnimator @ 020e7f2.
Axes: b batch, f frames, c channels, h w latent pixels, n tokens, d token width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fast_blocks import Conditions, is_fast, make_fast, make_plain, run
from .id_adapter import FACE_TOKENS, AdapterOptions, AttentionKernel, IDAdapter, ImageTokensOnly
from .norms import set_groups, split_groups

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel  # pyright: ignore[reportPrivateImportUsage]

__all__ = ["FACE_TOKENS", "AdapterOptions", "build_unet", "config_from", "denoise", "set_plain"]

HEAD_WIDTH = 64
"""Channels per attention head of SVD; heads cannot be read from a checkpoint's shapes."""
NUM_TIME_IDS = 3
"""fps, motion bucket, noise augmentation strength."""


def config_from(
    state: Mapping[str, Tensor], num_attention_heads: Sequence[int] | None = None
) -> dict[str, Any]:
    """diffusers' configuration of the U-Net a state dict belongs to.

    Args:
        state: keys and shapes are read, so meta tensors will do.
        num_attention_heads: heads per level; width / 64 if left out, as in SVD.

    Raises:
        KeyError: the state dict is no spatio-temporal U-Net's.
    """
    levels = count_parts(state, "down_blocks.")
    widths = [
        state[f"down_blocks.{i}.resnets.0.spatial_res_block.conv1.weight"].shape[0] for i in range(levels)
    ]
    has_attention = [
        any(key.startswith(f"down_blocks.{i}.attentions.") for key in state) for i in range(levels)
    ]
    token_width = state["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    projection = state["add_embedding.linear_1.weight"].shape[1]
    return {
        "sample_size": None,
        "in_channels": state["conv_in.weight"].shape[1],
        "out_channels": state["conv_out.weight"].shape[0],
        "down_block_types": tuple(block_type("Down", attention) for attention in has_attention),
        "up_block_types": tuple(block_type("Up", attention) for attention in reversed(has_attention)),
        "block_out_channels": tuple(widths),
        "addition_time_embed_dim": projection // NUM_TIME_IDS,
        "projection_class_embeddings_input_dim": projection,
        "layers_per_block": tuple(count_parts(state, f"down_blocks.{i}.resnets.") for i in range(levels)),
        "cross_attention_dim": token_width,
        "transformer_layers_per_block": count_parts(state, "mid_block.attentions.0.transformer_blocks."),
        "num_attention_heads": tuple(
            num_attention_heads or (max(1, width // HEAD_WIDTH) for width in widths)
        ),
    }


def build_unet(config: Mapping[str, Any], *, plain: bool = False) -> UNetSpatioTemporalConditionModel:
    """The U-Net with the adapter's processors, so that its state dict has exactly the official keys.

    Works under `torch.device("meta")`.

    Args:
        config: keyword arguments of diffusers' class, for example from `config_from`, and `norm_num_groups` (32 if
            left out).
        plain: keep diffusers' own forward functions; the same numbers, slower. See `set_plain`.
    """
    from diffusers import UNetSpatioTemporalConditionModel  # pyright: ignore[reportPrivateImportUsage]

    arguments, groups = split_groups(config)
    unet = UNetSpatioTemporalConditionModel(**arguments)
    set_groups(unet, groups)
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            _set_processor(name, module)
    if not plain:
        make_fast(unet)
    return unet


def set_plain(unet: nn.Module, plain: bool) -> None:
    """Switch between diffusers' own forward functions and ours; weights stay as they are."""
    (make_plain if plain else make_fast)(unet)


def denoise(
    unet: Any,
    sample: Tensor,
    timestep: Tensor,
    tokens: Tensor,
    added_time_ids: Tensor,
    *,
    pose_features: Tensor | None = None,
    adapter: AdapterOptions = AdapterOptions(),  # noqa: B008  (frozen)
    image_only: bool = False,
    attention: AttentionKernel | None = None,
) -> Tensor:
    """One prediction of the network.

    Args:
        unet: from `build_unet`.
        sample: [b f 8 h w]: noisy latents scaled by 1/sqrt(sigma^2 + 1), then image latents.
        timestep: ln(sigma) / 4, [b] or without an axis.
        tokens: [b n d]: CLIP image tokens (usually one), then four face tokens. Zero rows are unconditional.
        added_time_ids: [b 3]: fps - 1, motion bucket, noise augmentation strength.
        pose_features: [bf c h w] from PoseNet, added after the first convolution; zeros or None for no pose.
        adapter: strength and alignment of the face branch.
        image_only: treat the frames as unrelated pictures; no temporal layer takes part.
        attention: softmax attention of [b k n d] tensors to use instead of torch's.

    Returns:
        The v-prediction [b f 4 h w].
    """
    if not is_fast(unet.mid_block.resnets[0]):
        return _denoise_plain(
            unet, sample, timestep, tokens, added_time_ids, pose_features, adapter, image_only
        )
    batch, frames = sample.shape[:2]
    emb = _time_embedding(unet, sample, timestep, added_time_ids)
    kernel = attention or F.scaled_dot_product_attention
    cond = Conditions(frames, F.silu(emb), tokens, adapter, image_only, kernel)
    x = sample.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    x = unet.conv_in(x)  # [bf c h w]
    if pose_features is not None:
        x = x + pose_features
    x = _walk(unet, x, cond)
    x = unet.conv_out(F.silu(unet.conv_norm_out(x)))
    return x.unflatten(0, (batch, frames))


def _walk(unet: Any, x: Tensor, cond: Conditions) -> Tensor:
    """Down, middle and up; the order in which SVD's blocks meet and the skips are taken back."""
    skips = [x]
    for block in unet.down_blocks:
        for resnet, attention in _layers(block):
            x = _layer(block, resnet, attention, x, cond)
            skips.append(x)
        for downsampler in block.downsamplers or ():
            x = downsampler(x)
            skips.append(x)
    x = run(unet.mid_block, unet.mid_block.resnets[0], x, cond)
    for resnet, attention in zip(unet.mid_block.resnets[1:], unet.mid_block.attentions, strict=True):
        x = run(unet.mid_block, resnet, attention(x, cond), cond)
    for block in unet.up_blocks:
        for resnet, attention in _layers(block):
            x = _layer(block, resnet, attention, torch.cat((x, skips.pop()), dim=1), cond)
        for upsampler in block.upsamplers or ():
            x = upsampler(x, skips[-1].shape[-2:])
    return x


def _layers(block: Any) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    attentions = getattr(block, "attentions", None)
    return zip(block.resnets, attentions or [None] * len(block.resnets), strict=True)


def _layer(block: Any, resnet: nn.Module, attention: nn.Module | None, x: Tensor, cond: Conditions) -> Tensor:
    x = run(block, resnet, x, cond)
    return x if attention is None else attention(x, cond)


def _time_embedding(unet: Any, sample: Tensor, timestep: Tensor, added_time_ids: Tensor) -> Tensor:
    """Embedding of noise level and time ids, [b 4c]."""
    batch = sample.shape[0]
    noise_level = unet.time_proj(timestep.to(sample.device).expand(batch)).to(sample.dtype)
    ids = unet.add_time_proj(added_time_ids.flatten()).view(batch, -1).to(sample.dtype)
    return unet.time_embedding(noise_level) + unet.add_embedding(ids)


def _denoise_plain(
    unet: Any,
    sample: Tensor,
    timestep: Tensor,
    tokens: Tensor,
    added_time_ids: Tensor,
    pose_features: Tensor | None,
    adapter: AdapterOptions,
    image_only: bool,
) -> Tensor:
    """The same by diffusers' own forward functions; slower, and what the fast path is measured against."""
    with _plain_settings(unet, pose_features, adapter, image_only):
        return unet(sample, timestep, tokens, added_time_ids, return_dict=False)[0]


@contextmanager
def _plain_settings(
    unet: Any, pose_features: Tensor | None, adapter: AdapterOptions, image_only: bool
) -> Iterator[None]:
    """Within this block the plain U-Net adds the pose and uses these options."""
    processors = [module for module in unet.modules() if isinstance(module, IDAdapter)]
    hooks = []
    if pose_features is not None:
        hooks.append(unet.conv_in.register_forward_hook(lambda _module, _inputs, x: x + pose_features))
    if image_only:
        mixers = [module for name, module in unet.named_modules() if name.endswith("time_mixer")]
        hooks += [mixer.register_forward_pre_hook(_spatial_only, with_kwargs=True) for mixer in mixers]
    try:
        for processor in processors:
            processor.options = adapter
        yield
    finally:
        for processor in processors:
            processor.options = AdapterOptions()
        for hook in hooks:
            hook.remove()


def _spatial_only(_module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {**keywords, "image_only_indicator": torch.ones_like(keywords["image_only_indicator"])}


def _set_processor(name: str, attn: Any) -> None:
    if ".temporal_transformer_blocks." in name:
        attn.processor = ImageTokensOnly()
    else:
        attn.processor = IDAdapter(attn.to_q.weight.shape[0], attn.to_k.weight.shape[1])


def count_parts(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts a state dict has below `prefix`."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def block_type(direction: str, attention: bool, kind: str = "SpatioTemporal") -> str:
    """diffusers' name of a block: "Down" or "Up", with or without attention, "SpatioTemporal" or "2D"."""
    return f"{'CrossAttn' if attention else ''}{direction}Block{kind}"
