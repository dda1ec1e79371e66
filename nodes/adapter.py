"""ID Adapter U-Net and Animation Windows: patches on MODEL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import comfy.context_windows
import comfy.model_management as mm
import torch
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.models.unet import AdapterOptions
from ..stableanimator_core.windows import (
    DEFAULT_OVERLAP,
    DEFAULT_WINDOW_SIZE,
    anchored_windows,
    check_windows,
    predict_in_windows,
    triangular_weights,
)
from .base import CATEGORY, AnimatorNode, advanced, refusal
from .inputs import percent_inputs
from .model import ADAPTER, AdapterPatch, expect_animator_model
from .pose_cond import SigmaRange

ALIGNMENTS = ["full", "mean", "none"]


class IDAdapterUNet(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_IDAdapterUNet",
            display_name="ID Adapter U-Net",
            category=f"{CATEGORY}/model",
            description="Sets how strongly the face leads the U-Net. Without this node the strength is 1, as trained.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Animator Models."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="Look-alike strength. 1 is what the model was trained on, 0 ignores the face.",
                ),
                advanced(
                    io.Combo.Input(
                        "alignment",
                        options=ALIGNMENTS,
                        default="full",
                        tooltip="How face features are fitted to the image features before they are added: mean and "
                        "spread (full, as trained), mean only, or not at all. The last two are ablations.",
                    )
                ),
                *percent_inputs("the face"),
            ],
            outputs=[
                io.Model.Output(
                    "patched", display_name="model", tooltip="For the sampler or further patches."
                )
            ],
        )

    @classmethod
    def execute(
        cls, model, strength: float, alignment: str, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        expect_animator_model(model)
        if alignment not in ALIGNMENTS:
            raise InputError("alignment", f"is '{alignment}'", f"choose one of {', '.join(ALIGNMENTS)}")
        sampling = model.get_model_object("model_sampling")
        patch = AdapterPatch(
            AdapterOptions(strength=strength, alignment=alignment),
            SigmaRange.of_percents(sampling, start_percent, end_percent),
        )
        patched = model.clone()
        options = patched.model_options
        patched.model_options = {
            **options,
            "transformer_options": {**options.get("transformer_options", {}), ADAPTER: patch},
        }
        return io.NodeOutput(patched)


class AnimationWindows(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_AnimationWindows",
            display_name="Animation Windows",
            category=f"{CATEGORY}/model",
            description="Denoises clips of any length in overlapping windows that all begin with the first frame. "
            "Memory stays that of one window; time grows with the number of frames.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Animator Models or ID Adapter U-Net."),
                io.Int.Input(
                    "window_size",
                    default=DEFAULT_WINDOW_SIZE,
                    min=1,
                    max=256,
                    tooltip="Frames denoised together. 16 is what the model was trained on; more costs memory. "
                    "A shorter clip is one window.",
                ),
                io.Int.Input(
                    "overlap",
                    default=DEFAULT_OVERLAP,
                    min=0,
                    max=255,
                    tooltip="Frames by which windows overlap, counting the first frame: 4 shares 3 running frames. "
                    "More is smoother and slower. At least 1, less than the window.",
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def validate_inputs(cls, window_size=None, overlap=None) -> bool | str:
        """Impossible windows are refused when the workflow is queued."""
        if window_size is None or overlap is None:  # comes from another node; execute looks at it
            return True
        return refusal(cls, lambda: check_windows(window_size + 1, window_size, overlap))

    @classmethod
    def execute(cls, model, window_size: int, overlap: int) -> io.NodeOutput:
        expect_animator_model(model)
        check_windows(window_size + 1, window_size, overlap)
        patched = model.clone()
        patched.model_options = {
            **patched.model_options,
            "context_handler": AnchoredWindows(window_size, overlap),
        }
        comfy.context_windows.create_prepare_sampling_wrapper(patched)  # memory is estimated for one window
        return io.NodeOutput(patched)


class ClipWindows(comfy.context_windows.ContextHandlerABC):
    """Core's hook for windows, with windows and weights of our own.

    Core's own handler has other windows, and does not slice conditioning along the batch axis, where these frames lie.
    """

    dim = 0  # read by core's memory estimate, with context_length
    weights_of: Callable[[int], torch.Tensor] = staticmethod(triangular_weights)

    def __init__(self, window_size: int):
        self.context_length = window_size

    @abstractmethod
    def windows(self, num_frames: int) -> list[list[int]]:
        """Frame numbers of each window."""

    def should_use_context(
        self, model: Any, conds: Any, x_in: torch.Tensor, timestep: Any, model_options: Any
    ) -> bool:
        return x_in.shape[0] > self.context_length

    def get_resized_cond(self, cond_in: Any, x_in: torch.Tensor, window: Any, device: Any = None) -> Any:
        """The conditioning of one window: whatever has a row for every frame of the clip keeps the window's rows."""
        if cond_in is None:
            return None
        return [
            {**entry, "model_conds": _rows_of(entry.get("model_conds", {}), window.index_list, x_in.shape[0])}
            for entry in cond_in
        ]

    def execute(
        self,
        calc_cond_batch: Callable[..., list[torch.Tensor]],
        model: Any,
        conds: list[Any],
        x_in: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> list[torch.Tensor]:
        """Predictions of every half for the whole clip, blended over the windows."""

        def predict(frames: list[int]) -> tuple[torch.Tensor, ...]:
            mm.throw_exception_if_processing_interrupted()
            window = comfy.context_windows.IndexListContextWindow(frames)
            options = {**model_options.get("transformer_options", {}), "context_window": window}
            parts = [self.get_resized_cond(cond, x_in, window) for cond in conds]
            settings = {**model_options, "transformer_options": options}
            return tuple(calc_cond_batch(model, parts, x_in[frames], timestep[frames], settings))

        return list(predict_in_windows(predict, self.windows(x_in.shape[0]), self.weights_of))


class AnchoredWindows(ClipWindows):
    """StableAnimator's windows: frame 0 is in every one."""

    def __init__(self, window_size: int, overlap: int):
        super().__init__(window_size)
        self.overlap = overlap

    def windows(self, num_frames: int) -> list[list[int]]:
        return anchored_windows(num_frames, self.context_length, self.overlap)


def _rows_of(model_conds: dict[str, Any], frames: list[int], num_frames: int) -> dict[str, Any]:
    def sliced(cond: Any) -> Any:
        tensor = getattr(cond, "cond", None)
        if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or tensor.shape[0] != num_frames:
            return cond
        return cond._copy_with(tensor[frames])

    return {name: sliced(cond) for name, cond in model_conds.items()}
