"""StableAnimator's U-Net as a core diffusion model: every sampler, scheduler, guider and model patch works on it.

Frames are the batch axis, as in core's own SVD. ComfyUI repeats each conditioning tensor to that axis; the network
wants one row per guidance half, so they are thinned out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.ldm.modules.attention
import comfy.model_base
import comfy.model_management as mm
import comfy.patcher_extension
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.models.unet import AdapterOptions, denoise
from .managed import use_comfy_ops
from .pose_cond import POSE, SigmaRange, pose_cond, pose_of_batch

ADAPTER = "stableanimator_adapter"
TIME_IDS = "stableanimator_time_ids"


@dataclass(frozen=True)
class AdapterPatch:
    """What IDAdapterUNet sets on a model: how the ID adapter works, and when."""

    options: AdapterOptions
    sigmas: SigmaRange


class DiffusionUNet(nn.Module):
    """The network as BaseModel calls it. Its keys are those of unet.pth, so LoRA names fit without a map."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype):
        super().__init__()
        for name, child in unet.named_children():
            self.add_module(name, child)
        self.dtype = dtype
        self._whole = [unet]  # in a list, so that its weights are not registered twice

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x [bf 8 h w], frames of each half in a row -> v-prediction [bf 4 h w]."""
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: Any,
        transformer_options: dict[str, Any],
        *,
        time_ids: Tensor,
        pose_features: Tensor,
        adapter: AdapterOptions,
        **kwargs: Any,
    ) -> Tensor:
        halves = len(transformer_options.get("cond_or_uncond", [0]))
        num_frames = x.shape[0] // halves
        output = denoise(
            self._whole[0],
            x.unflatten(0, (halves, num_frames)),  # [b f 8 h w]
            timesteps[::num_frames],
            context[::num_frames],
            time_ids[::num_frames],
            pose_features=pose_features,
            adapter=adapter,
            attention=None if x.device.type == "cpu" else core_attention,
        )
        return output.flatten(0, 1)


def core_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of [b k n d] by what ComfyUI was started with: xformers, sage, torch, ...

    Not on the CPU, where core splits attention to save memory and torch's own is faster.
    """
    return comfy.ldm.modules.attention.optimized_attention(
        query, key, value, query.shape[1], skip_reshape=True, skip_output_reshape=True
    )


class StableAnimatorModel(comfy.model_base.BaseModel):
    """EDM v-prediction with SVD's noise range, latent format and channels."""

    def __init__(self, unet: nn.Module, storage: torch.dtype, compute: torch.dtype | None):
        config = comfy.supported_models.SVD_img2vid({"disable_unet_model_creation": True, "in_channels": 8})
        config.set_inference_dtype(storage, compute)
        # Activations of one half at 512 x 512, 16 frames, float16: 1.05 GiB; core's estimate for factor 1 is 1.28.
        config.memory_usage_factor = 1.0
        super().__init__(config, comfy.model_base.ModelType.V_PREDICTION_EDM)
        self.pose_channels = unet.config.block_out_channels[0]
        self.token_width = unet.config.cross_attention_dim
        self.diffusion_model = DiffusionUNet(unet, storage)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Tokens, image latents, time ids and pose of one half, checked against the latents."""
        noise, device = kwargs["noise"], kwargs["device"]
        tokens, image_latents = kwargs.get("cross_attn"), kwargs.get("concat_latent_image")
        time_ids = kwargs.get(TIME_IDS)
        if (
            tokens is None
            or image_latents is None
            or time_ids is None
            or tokens.shape[-1] != self.token_width
        ):
            raise InputError(
                f"{kwargs.get('prompt_type', 'positive')} conditioning",
                "was not made for StableAnimator",
                "connect the outputs of ArcFace + CLIP Encode (through Apply PoseNet) to the sampler",
            )
        if noise.dim() != 4 or noise.shape[1] != image_latents.shape[1]:
            raise InputError(
                "latent",
                f"has the shape {list(noise.shape)}",
                "use the LATENT of the ArcFace + CLIP Encode node",
            )
        if image_latents.shape[-2:] != noise.shape[-2:]:
            raise InputError(
                "latent",
                f"is {noise.shape[-1] * 8} x {noise.shape[-2] * 8}, the conditioning was made for "
                f"{image_latents.shape[-1] * 8} x {image_latents.shape[-2] * 8}",
                "use the LATENT of the same ArcFace + CLIP Encode node",
            )
        return {
            "c_concat": comfy.conds.CONDNoiseShape(image_latents),
            "c_crossattn": comfy.conds.CONDCrossAttn(tokens),
            "time_ids": comfy.conds.CONDRegular(time_ids),
            "pose_features": pose_cond(self, kwargs.get(POSE), self.pose_channels, noise, device),
        }

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Settle what depends on the noise level here, outside of what TorchCompileModel compiles."""
        options = {} if transformer_options is None else transformer_options
        sigma = float(t.max())
        kwargs["pose_features"] = pose_of_batch(kwargs["pose_features"], x, sigma, options)
        patch: AdapterPatch | None = options.get(ADAPTER)
        active = patch is not None and sigma in patch.sigmas
        kwargs["adapter"] = patch.options if active else AdapterOptions(strength=0.0 if patch else 1.0)
        return super().apply_model(x, t, c_concat, c_crossattn, control, options, **kwargs)


def model_patcher(unet: nn.Module, storage: torch.dtype, compute: torch.dtype | None) -> ModelPatcher:
    """A loaded U-Net as MODEL.

    Args:
        unet: from the core loader, weights in `storage`.
        storage: dtype the weights are kept in.
        compute: dtype to compute in where it differs from `storage`, else None.
    """
    return as_patcher(StableAnimatorModel(use_comfy_ops(unet), storage, compute))


def as_patcher(model: nn.Module) -> ModelPatcher:
    """A diffusion model in the hands of core's memory manager."""
    return ModelPatcher(model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def expect_animator_model(model: ModelPatcher) -> ModelPatcher:
    """`model`, refused if it is of another family.

    Raises:
        InputError: not made by Load Animator Models.
    """
    if not isinstance(getattr(model, "model", None), StableAnimatorModel):
        family = type(getattr(model, "model", model)).__name__
        raise InputError(
            "model", f"is a {family}, not a StableAnimator model", "connect Load Animator Models"
        )
    return model
