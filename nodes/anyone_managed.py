"""Animate Anyone's reference net and VAE under ComfyUI's memory manager."""

from __future__ import annotations

from typing import Any

import comfy.ldm.models.autoencoder
import comfy.ldm.modules.temporal_ae
import comfy.model_management as mm
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..stableanimator_core.animate_anyone.reference_net import write_reference
from ..stableanimator_core.models.vae import SCALING_FACTOR
from .managed import ImageVAE, TemporalVAE, encode_reference, other_vae, use_comfy_ops
from .model import core_attention

# Bytes beside the weights for each latent cell and byte of the dtype: the widest level holds a few maps of 320
# channels, and the feed-forward eight times that.
_MAPS = 320 * 16


class _ReferenceNetwork(nn.Module):
    """The reference net with a forward of its own; diffusers' class has a read-only `device`, which core sets."""

    def __init__(self, net: nn.Module):
        super().__init__()
        for name, child in net.named_children():
            self.add_module(name, child)
        self._whole = [net]  # in a list, so that its weights are not registered twice

    def forward(self, latents: Tensor, token: Tensor) -> dict[str, Tensor]:
        attention = None if latents.device.type == "cpu" else core_attention
        return write_reference(self._whole[0], latents, token, attention=attention)


class ManagedReferenceNet:
    """The reference net, loaded when it is needed.

    Args:
        net: from the core loader.
        compute: dtype to compute in; the weights are stored in their own.
        family: `small.SMALL` for the small demo model's.
    """

    def __init__(self, net: nn.Module, compute: torch.dtype, family: str = ""):
        self.family = family
        self.token_width = net.config.cross_attention_dim
        self.compute = compute
        module = use_comfy_ops(_ReferenceNetwork(net))
        device = mm.get_torch_device()
        self.patcher = ModelPatcher(module, load_device=device, offload_device=mm.unet_offload_device())

    def __call__(self, latents: Tensor, token: Tensor) -> dict[str, Tensor]:
        """Latents [1 4 h w] times the scaling factor and token [1 n d] -> block name -> [1 s c], where intermediate
        results live."""
        memory = latents[0, 0].numel() * _MAPS * mm.dtype_size(self.compute)
        mm.load_models_gpu([self.patcher], memory_required=memory)
        given = (tensor.to(self.patcher.load_device, self.compute) for tensor in (latents, token))
        features = self.patcher.model(*given)
        return {name: feature.to(mm.intermediate_device()) for name, feature in features.items()}


def reference_latents(vae: comfy.sd.VAE, pixels: Tensor) -> Tensor:
    """The photo's latents [1 4 h w] from pixels [1 3 H W] in [-1, 1]: posterior mode times the scaling factor."""
    return encode_reference(vae, pixels) * SCALING_FACTOR


def expect_image_vae(vae: Any) -> comfy.sd.VAE:
    """`vae`, refused if it is not of Stable Diffusion 1's family; ours or a core loader's.

    Raises:
        InputError: another VAE.
    """
    network = getattr(vae, "first_stage_model", None)
    of_core = isinstance(network, comfy.ldm.models.autoencoder.AutoencodingEngine)
    temporal = isinstance(vae, TemporalVAE) or isinstance(
        getattr(network, "decoder", None), comfy.ldm.modules.temporal_ae.VideoDecoder
    )
    four = getattr(vae, "latent_channels", None) == 4
    if not (isinstance(vae, ImageVAE) or (of_core and four and not temporal)):
        remedy = "connect the VAE of Load Animate Anyone Models, or Load VAE with sd-vae-ft-mse"
        raise other_vae(vae, "Stable Diffusion 1's", remedy)
    return vae
