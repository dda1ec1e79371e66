"""Animate Anyone's denoising U-Net as a core diffusion model: every sampler, scheduler, guider and patch works on it.

Frames are the batch axis, as with StableAnimator. The reference network's features come with the positive
conditioning; both halves carry the skeletons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..stableanimator_core.animate_anyone.attention import Reference
from ..stableanimator_core.animate_anyone.denoising_unet import denoise, longest_window
from ..stableanimator_core.animate_anyone.walk import transformer_block_names
from ..stableanimator_core.errors import InputError
from .managed import use_comfy_ops
from .model import DiffusionUNet, as_patcher, core_attention, expect_animator_model
from .pose_cond import POSE, pose_cond, pose_of_batch

REFERENCE = "animate_anyone_reference"
"""Entry of CONDITIONING that holds a `ReferenceCondition`; its features are empty in the negative."""

# Core names schedules after Stable Diffusion's code: "linear" spaces the roots of the betas (as in training),
# "sqrt_linear" the betas themselves, which is what the official pipeline samples with.
SAMPLING = {"beta_schedule": "sqrt_linear", "linear_start": 0.00085, "linear_end": 0.012, "zsnr": True}

_LATENT_CHANNELS = 4


@dataclass(frozen=True)
class ReferenceCondition:
    """What Reference Net Encode puts into CONDITIONING.

    Attributes:
        features: block name -> [1 s c], on the CPU; empty where the photo is not looked at.
        height: of the latents it was made for.
        width: likewise.
        round_to_half: pass the features through float16, as the official code does whatever its dtype.
    """

    features: Mapping[str, Tensor]
    height: int
    width: int
    round_to_half: bool = False


class ReferenceParts(tuple):
    """The reference of each guidance half, None where it sees none; a kind of its own, so that core passes it on."""


class CONDReference(comfy.conds.CONDRegular):
    """A `Reference` of this run, or None; the same for all frames and windows."""

    cond: Reference | None

    def process_cond(self, batch_size: int, **kwargs: Any) -> CONDReference:
        return self

    def can_concat(self, other: Any) -> bool:
        return isinstance(other, CONDReference)

    def concat(self, others: Sequence[CONDReference]) -> ReferenceParts:
        return ReferenceParts(part.cond for part in (self, *others))

    def size(self) -> list[int]:
        return [1]  # nothing that grows with the batch


class AnyoneUNet(DiffusionUNet):
    """The network as BaseModel calls it; keys are those of denoising_unet.pth and motion_module.pth together."""

    @property
    def unet(self) -> nn.Module:
        return self._whole[0]

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: Any,
        transformer_options: dict[str, Any],
        *,
        pose_features: Tensor,
        reference: Reference | None,
        reference_rows: tuple[bool, ...],
        **kwargs: Any,
    ) -> Tensor:
        """x [bf 4 h w], frames of each half in a row -> v-prediction [bf 4 h w]."""
        halves = len(reference_rows)
        num_frames = x.shape[0] // halves
        output = denoise(
            self.unet,
            x.unflatten(0, (halves, num_frames)),
            timesteps[::num_frames],
            context[::num_frames],
            pose_features=pose_features,
            reference=reference,
            reference_rows=reference_rows,
            attention=None if x.device.type == "cpu" else core_attention,
        )
        return output.flatten(0, 1)


class AnyoneModel(comfy.model_base.BaseModel):
    """v-prediction of Stable Diffusion 1.5's latents, with noise levels that end at zero signal."""

    def __init__(self, unet: nn.Module, storage: torch.dtype, compute: torch.dtype | None):
        config = comfy.supported_models.SD15({"disable_unet_model_creation": True})
        config.sampling_settings = dict(SAMPLING)  # core's Model Sampling patches read them too
        config.set_inference_dtype(storage, compute)
        super().__init__(config, comfy.model_base.ModelType.V_PREDICTION)
        self.pose_channels = unet.config.block_out_channels[0]
        self.token_width = unet.config.cross_attention_dim
        self.longest_window = longest_window(unet)
        self.diffusion_model = AnyoneUNet(unet, storage)
        self._blocks = transformer_block_names(unet)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Token, reference and pose of one half, checked against the latents."""
        noise, device, kind = kwargs["noise"], kwargs["device"], kwargs.get("prompt_type", "positive")
        tokens, given = kwargs.get("cross_attn"), kwargs.get(REFERENCE)
        if (
            tokens is None
            or tokens.shape[-1] != self.token_width
            or not isinstance(given, ReferenceCondition)
            or (given.features and set(given.features) != set(self._blocks))
        ):
            raise InputError(
                f"{kind} conditioning",
                "was not made for this Animate Anyone model",
                "connect the outputs of Reference Net Encode (through Apply Pose Guider) to the sampler, with the "
                "reference net that was loaded beside the model",
            )
        self._check_latent(noise, given)
        return {
            "c_crossattn": comfy.conds.CONDCrossAttn(tokens),
            "reference": CONDReference(self._reference(given, device)),
            "pose_features": pose_cond(self, kwargs.get(POSE), self.pose_channels, noise, device),
        }

    def _check_latent(self, noise: Tensor, given: ReferenceCondition) -> None:
        if noise.dim() != 4 or noise.shape[1] != _LATENT_CHANNELS:
            raise InputError(
                "latent", f"has the shape {list(noise.shape)}", "use the LATENT of Reference Net Encode"
            )
        height, width = noise.shape[-2:]
        if (height, width) != (given.height, given.width):
            raise InputError(
                "latent",
                f"is {width * 8} x {height * 8}, the conditioning was made for "
                f"{given.width * 8} x {given.height * 8}",
                "use the LATENT of the same Reference Net Encode node",
            )
        windows = self.current_patcher.model_options.get("context_handler") if self.current_patcher else None
        if windows is None and self.longest_window is not None and noise.shape[0] > self.longest_window:
            raise InputError(
                "latent",
                f"has {noise.shape[0]} frames, the motion modules know {self.longest_window} positions",
                "put Looped Windows before the sampler, for clips of any length",
            )

    def _reference(self, given: ReferenceCondition, device: torch.device) -> Reference | None:
        if not given.features:
            return None
        dtype = self.manual_cast_dtype or self.get_dtype()
        features = {name: feature.to(device, dtype) for name, feature in given.features.items()}
        return Reference(features, round_to_half=given.round_to_half)

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
        """Settle what depends on the noise level and on the run here, outside of what TorchCompileModel compiles."""
        options = {} if transformer_options is None else transformer_options
        kwargs["pose_features"] = pose_of_batch(kwargs["pose_features"], x, float(t.max()), options)
        parts: ReferenceParts = kwargs.pop("reference")
        kwargs["reference"] = self._ready(parts)
        kwargs["reference_rows"] = tuple(part is not None for part in parts)
        return super().apply_model(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _ready(self, parts: ReferenceParts) -> Reference | None:
        """One reference for the rows that see one, with its keys and values; made once per run where that is right.

        Not kept where rows see different photos, and where hooks may change the weights during the run.
        """
        seen = [part for part in parts if part is not None]
        if not seen:
            return None
        reference = seen[0]
        hooked = self.current_patcher is not None and self.current_patcher.current_hooks is not None
        if hooked or any(part is not reference for part in seen):
            names = reference.features
            reference = Reference({name: torch.cat([part.features[name] for part in seen]) for name in names})
        for name in self._blocks:
            block = self.diffusion_model.unet.get_submodule(name)
            reference.keys_and_values(name, block.attn1, reference.features[name])
        return reference


def anyone_patcher(unet: nn.Module, storage: torch.dtype, compute: torch.dtype | None) -> ModelPatcher:
    """A loaded denoising U-Net as MODEL.

    Args:
        unet: with its motion modules, weights in `storage`.
        storage: dtype the weights are kept in.
        compute: dtype to compute in where it differs from `storage`, else None.
    """
    return as_patcher(AnyoneModel(use_comfy_ops(unet), storage, compute))


def expect_own_model(model: Any) -> ModelPatcher:
    """`model`, refused if it is neither a StableAnimator nor an Animate Anyone model.

    Raises:
        InputError: not made by one of our loaders.
    """
    if not isinstance(getattr(model, "model", None), AnyoneModel):
        return expect_animator_model(model)
    return model


def expect_anyone_model(model: Any) -> ModelPatcher:
    """`model`, refused if it is of another family.

    Raises:
        InputError: not made by Load Animate Anyone Models.
    """
    if not isinstance(getattr(model, "model", None), AnyoneModel):
        family = type(getattr(model, "model", model)).__name__
        raise InputError(
            "model", f"is a {family}, not an Animate Anyone model", "connect Load Animate Anyone Models"
        )
    return model
