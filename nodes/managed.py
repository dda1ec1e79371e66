"""Core networks as ComfyUI's own kinds of model, so that it loads, streams, patches and unloads them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import comfy.clip_vision
import comfy.ldm.modules.temporal_ae
import comfy.model_management as mm
import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..stableanimator_core.errors import InputError

# Leaves that comfy.ops knows: it casts and streams their weights, and applies LoRA to them, inside forward.
_LEAVES = ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm", "Embedding")


def use_comfy_ops(module: nn.Module) -> nn.Module:
    """Give every leaf of `module` its comfy.ops class, in place. They subclass torch's, so weights and names stay."""
    kinds = {getattr(nn, name): getattr(comfy.ops.manual_cast, name) for name in _LEAVES}
    for leaf in module.modules():
        if type(leaf) in kinds:
            leaf.__class__ = kinds[type(leaf)]
            leaf.__dict__.pop(
                "forward", None
            )  # how plain torch widens float8 weights; comfy.ops does it itself
    return module


class ManagedNetwork:
    """A small network beside the diffusion model (PoseNet, Face Encoder, ArcFace) under ComfyUI's memory manager.

    Args:
        module: the network.
        family: which model it belongs to, where that is known: a word of `small.py`.
    """

    def __init__(self, module: nn.Module, family: str = ""):
        self.family = family
        self.module = use_comfy_ops(module)
        device = mm.get_torch_device()
        self.patcher = ModelPatcher(self.module, load_device=device, offload_device=mm.unet_offload_device())

    def eval(self) -> ManagedNetwork:
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.parameters()

    def __call__(self, *tensors: Tensor, **options: Any) -> Tensor:
        """Run on the device ComfyUI chose; the result comes back to where intermediate results live."""
        mm.load_models_gpu([self.patcher])
        on_device = [tensor.to(self.patcher.load_device, torch.float32) for tensor in tensors]
        return self.module(*on_device, **options).to(mm.intermediate_device())


def run_in_chunks(network: ManagedNetwork, frames: Tensor, chunk: int = 16) -> Tensor:
    """A network over a clip, once, [f 3 H W] -> [f c h w] on the CPU, from where the sampler takes its windows."""
    return torch.cat([network(part).cpu() for part in frames.split(chunk)])


class _Autoencoder(nn.Module):
    """A diffusers VAE with the two methods comfy.sd.VAE calls; keys stay those of the file."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        for name, child in vae.named_children():
            self.add_module(name, child)
        self.config = vae.config
        self._whole = [vae]  # in a list, so that its weights are not registered twice

    @property
    def vae(self) -> nn.Module:
        return self._whole[0]

    def encode(self, pixels: Tensor) -> Tensor:
        """[b 3 H W] in [-1, 1] -> posterior mode [b 4 h w], not multiplied by the scaling factor."""
        return self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0]


class _TemporalAutoencoder(_Autoencoder):
    def decode(self, latents: Tensor) -> Tensor:
        """[f 4 h w] of frames that belong together -> [f 3 H W]."""
        not_image_only = torch.zeros(1, len(latents), dtype=latents.dtype, device=latents.device)
        return self.decoder(latents, num_frames=len(latents), image_only_indicator=not_image_only)


class _ImageAutoencoder(_Autoencoder):
    def decode(self, latents: Tensor) -> Tensor:
        """[b 4 h w] of pictures that know nothing of each other -> [b 3 H W]."""
        return self.decoder(self.post_quant_conv(latents))


class _DiffusersVAE(comfy.sd.VAE):
    """A VAE of any size as a core VAE; core's own class knows the published sizes only."""

    def __init__(self, vae: nn.Module, network: nn.Module):
        # Core builds the smallest VAE it knows, which sets every attribute this version of ComfyUI needs.
        super().__init__(sd={"pixel_space_vae": torch.zeros(1)})
        self.downscale_ratio = self.upscale_ratio = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_channels = vae.config.latent_channels
        # Per frame: measured share of the decoder's widest activations, in elements per latent cell.
        width = vae.config.block_out_channels[0]
        self.memory_used_decode = lambda shape, dtype: (
            shape[2] * shape[3] * 512 * width * mm.dtype_size(dtype)
        )
        self.memory_used_encode = lambda shape, dtype: shape[2] * shape[3] * 10 * width * mm.dtype_size(dtype)
        self.working_dtypes = [torch.float16, torch.bfloat16, torch.float32]
        self.vae_dtype = mm.vae_dtype(self.device, self.working_dtypes)
        self.first_stage_model = use_comfy_ops(network).to(self.vae_dtype)
        self.size = None
        self.patcher = ModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=mm.vae_offload_device()
        )


class TemporalVAE(_DiffusersVAE):
    """SVD's VAE: frames of a clip are decoded together."""

    def __init__(self, vae: nn.Module):
        super().__init__(vae, _TemporalAutoencoder(vae))


class ImageVAE(_DiffusersVAE):
    """Stable Diffusion's VAE, for single pictures."""

    def __init__(self, vae: nn.Module):
        super().__init__(vae, _ImageAutoencoder(vae))


def expect_temporal_vae(vae: Any) -> comfy.sd.VAE:
    """`vae`, refused if it is not of Stable Video Diffusion's family; ours or a core loader's, of any size.

    Others may run too (SD 1.5's also has four channels), but what they make is not what this U-Net was trained on.

    Raises:
        InputError: another VAE.
    """
    network = getattr(vae, "first_stage_model", None)
    temporal = isinstance(getattr(network, "decoder", None), comfy.ldm.modules.temporal_ae.VideoDecoder)
    if not (isinstance(vae, TemporalVAE) or temporal):
        raise other_vae(vae, "Stable Video Diffusion's", "connect the VAE of Load Animator Models")
    return vae


def other_vae(vae: Any, wanted: str, remedy: str) -> InputError:
    """What to tell about a VAE that is not `wanted`."""
    network = getattr(vae, "first_stage_model", None)
    kind = type(vae if network is None else network).__name__
    return InputError("vae", f"is another family's ({kind}), not {wanted}", remedy)


def encode_reference(vae: comfy.sd.VAE, pixels: Tensor) -> Tensor:
    """Reference pixels [1 3 H W] in [-1, 1] -> posterior mode [1 4 h w], not multiplied by the scaling factor.

    Our own VAE computes in float32 whatever its storage, as the official code does: the picture's detail hangs on it.
    A VAE of a core loader works as core has set it up.
    """
    if not isinstance(vae, _DiffusersVAE):
        return vae.encode((pixels.permute(0, 2, 3, 1) + 1) / 2)
    memory = vae.memory_used_encode(pixels.shape, torch.float32)
    mm.load_models_gpu([vae.patcher], memory_required=memory)
    encoded = vae.first_stage_model.encode(pixels.to(vae.device, torch.float32))
    return encoded.to(vae.output_device)


def decode_chunk(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """Frames that belong together, [f 4 h w] -> [f 3 H W] in about [-1, 1]; never split by free memory, unlike core."""
    memory = vae.memory_used_decode(latents.shape, vae.vae_dtype) * len(latents)
    mm.load_models_gpu([vae.patcher], memory_required=memory)
    return vae.first_stage_model.decode(latents.to(vae.device, vae.vae_dtype)).to(vae.output_device)


def clip_vision_of(encoder: nn.Module) -> comfy.clip_vision.ClipVisionModel:
    """A transformers CLIPVisionModelWithProjection's weights as core's CLIP_VISION, of any size."""
    settings = {**encoder.config.to_dict(), "model_type": "clip_vision_model"}
    handle, path = tempfile.mkstemp(suffix=".json")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(settings, file, default=str)
        clip_vision = comfy.clip_vision.ClipVisionModel(path)
    finally:
        os.remove(path)
    clip_vision.load_sd(encoder.state_dict())
    return clip_vision


def image_embedding(clip_vision: comfy.clip_vision.ClipVisionModel, pixels: Tensor) -> Tensor:
    """CLIP pixels [1 3 224 224], already preprocessed -> projected embedding [1 1 d].

    Core's `encode_image` would preprocess the picture its own way; the official resize differs by 1 % of the result.

    Raises:
        InputError: the encoder has no projection (SigLIP, DINO).
    """
    mm.load_model_gpu(clip_vision.patcher)
    projected = clip_vision.model(
        pixel_values=pixels.to(clip_vision.load_device).float(), intermediate_output=-2
    )[2]
    if not isinstance(projected, Tensor) or projected.dim() != 2:
        raise InputError(
            "clip_vision", "is no CLIP with a projection", "connect the CLIP_VISION of Load Animator Models"
        )
    return projected[:, None].float().to(mm.intermediate_device())
