"""HJB refinement inside ComfyUI's sampling: one way in, for a SAMPLER and for a MODEL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor, nn

from ..stableanimator_core.errors import InputError
from .base import show_progress_text
from .managed import ImageVAE, ManagedNetwork, TemporalVAE
from .model import StableAnimatorModel

_SECONDS_BETWEEN_TEXTS = 0.5


def decoder_of(vae: Any) -> nn.Module:
    """The decoder of a VAE, temporal or for single pictures, in the form the core optimises through.

    A VAE of a core loader holds the same weights under other names; they are read into our own decoder.

    Raises:
        InputError: of neither Stable Video Diffusion's nor Stable Diffusion's family.
    """
    from ..stableanimator_core.errors import WeightsError
    from ..stableanimator_core.hjb.decoder import PictureDecoder

    if isinstance(vae, TemporalVAE):
        return vae.first_stage_model.vae.decoder
    with torch.inference_mode(False):
        if isinstance(vae, ImageVAE):
            return PictureDecoder(vae.first_stage_model.vae)
        try:
            network = _own_copy(vae.first_stage_model.state_dict())
        except (AttributeError, KeyError, ValueError, WeightsError) as error:
            raise InputError(
                "vae",
                "is neither Stable Video Diffusion's nor Stable Diffusion's",
                "connect the VAE of the loader that gives the model",
            ) from error
        decoder = network.decoder if hasattr(network.decoder, "time_conv_out") else PictureDecoder(network)
        return decoder.eval().requires_grad_(False)


def _own_copy(theirs: dict[str, Tensor]) -> nn.Module:
    """The VAE of core's state dict as diffusers' class, in memory of its own."""
    from ..stableanimator_core.models import vae as vaes
    from ..stableanimator_core.weights.load import load_exactly
    from ..stableanimator_core.weights.svd_layout import image_vae_to_diffusers, vae_to_diffusers

    state = {key: weight.detach().clone() for key, weight in theirs.items()}
    temporal = "decoder.mid.block_1.mix_factor" in state
    if temporal:
        state, build, config_from = vae_to_diffusers(state), vaes.build_vae, vaes.config_from
    else:
        state, build, config_from = (
            image_vae_to_diffusers(state),
            vaes.build_image_vae,
            vaes.image_config_from,
        )
    with torch.device("meta"):
        network = build(config_from(state))
    load_exactly(network, state, "vae")
    return network


class HJBRun:
    """A refiner bound to ComfyUI: begins and ends with each sampling, makes room, reports, and hears Cancel.

    Attributes:
        refiner: the core's `HJBRefiner`; its `report` is that of the last sampling.
    """

    def __init__(
        self, vae: Any, recogniser: ManagedNetwork, identity: Tensor, face_boxes: Any, options: Any, node: str
    ):
        from ..stableanimator_core.hjb.refiner import HJBRefiner

        self.refiner = HJBRefiner(
            decoder_of(vae), recogniser.module, identity, face_boxes, options, on_iteration=self._on_iteration
        )
        self._node = node
        self._budget_is_what_is_free = options.budget_gib is None
        self._said = 0.0

    def sampling(
        self,
        sample: Callable[..., Tensor],
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        *rest: Any,
    ) -> Tensor:
        """Run `sample` (a sampler's own method) with the refinement after guidance; keep nothing afterwards."""
        self.check_model(guider.model_patcher.model)
        options = dict(extra_args["model_options"])
        options = comfy.model_patcher.set_model_options_post_cfg_function(options, self._refined)
        self.refiner.begin(sigmas)
        self._make_room(guider)
        try:
            return sample(guider, sigmas, {**extra_args, "model_options": options}, *rest)
        finally:
            self.refiner.close()

    def check_model(self, model: Any) -> None:
        """Refuse a VAE for single pictures beside StableAnimator, whose frames its decoder does not join.

        Raises:
            InputError: for that.
        """
        temporal = hasattr(self.refiner.decoder, "time_conv_out")
        if isinstance(model, StableAnimatorModel) and not temporal:
            raise InputError(
                "vae", "is not Stable Video Diffusion's", "connect the VAE of Load Animator Models"
            )

    def _refined(self, args: dict[str, Any]) -> Tensor:
        return self.refiner(args["denoised"], float(args["sigma"].max()))

    def _make_room(self, guider: Any) -> None:
        """Let the optimisation have the card: everything but the U-Net may go; what is left is the budget."""
        device = guider.model_patcher.load_device
        if mm.is_device_cpu(device):
            return
        unet = guider.model_patcher.model
        keep = [loaded for loaded in mm.current_loaded_models if getattr(loaded.model, "model", None) is unet]
        mm.free_memory(1e30, device, keep_loaded=keep)
        if self._budget_is_what_is_free:
            free = mm.get_free_memory(device) / 2**30
            self.refiner.options = replace(self.refiner.options, budget_gib=max(0.9 * free, 1.0))

    def _on_iteration(self, step: int, iteration: Any) -> None:
        mm.throw_exception_if_processing_interrupted()
        if time.monotonic() - self._said > _SECONDS_BETWEEN_TEXTS:
            self._said = time.monotonic()
            show_progress_text(f"Step {step + 1}: distance to the face {iteration.loss:.4f}", self._node)


class HJBSamplerFunction(comfy.samplers.Sampler):
    """Another sampler, with the refinement at each of its model calls."""

    def __init__(self, sampler: comfy.samplers.Sampler, run: HJBRun):
        self._sampler, self._run = sampler, run

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        return self._sampler.max_denoise(model_wrap, sigmas)

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], *rest: Any, **named: Any
    ) -> Tensor:
        def inner(*arguments: Any) -> Tensor:
            return self._sampler.sample(*arguments, **named)

        return self._run.sampling(inner, model_wrap, sigmas, extra_args, *rest)


def sampler_wrapper(run: HJBRun) -> Callable[..., Tensor]:
    """The refinement as a SAMPLER_SAMPLE wrapper of a MODEL, so that plain KSampler has it too."""

    def wrapper(
        executor: Callable[..., Tensor], guider: Any, sigmas: Tensor, extra_args: dict, *rest: Any
    ) -> Tensor:
        return run.sampling(executor, guider, sigmas, extra_args, *rest)

    return wrapper
