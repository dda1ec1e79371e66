"""Looped Windows: clips of any length for Animate Anyone, in windows that may close to a loop."""

from __future__ import annotations

from collections.abc import Callable

import comfy.context_windows
from comfy_api.latest import io
from torch import Tensor

from ..stableanimator_core.animate_anyone.denoising_unet import check_window
from ..stableanimator_core.animate_anyone.pipeline import DEFAULT_OVERLAP, DEFAULT_WINDOW_SIZE, AnyoneOptions
from ..stableanimator_core.windows import check_windows, equal_weights
from .adapter import ClipWindows
from .anyone_model import expect_anyone_model
from .base import CATEGORY, AnimatorNode, refusal
from .sockets import one_of

LOOPS = ["closed", "open"]


class LoopedWindows(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_LoopedWindows",
            display_name="Looped Windows (Animate Anyone)",
            category=f"{CATEGORY}/model",
            description="Denoises clips of any length in overlapping windows, which may close the clip to a loop. "
            "Memory stays that of one window; time grows with the number of frames.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Animate Anyone Models."),
                io.Int.Input(
                    "window_size",
                    default=DEFAULT_WINDOW_SIZE,
                    min=1,
                    max=256,
                    tooltip="Frames denoised together. 24 is what the model was trained on, 32 is the most it knows "
                    "positions for. A shorter clip is one window.",
                ),
                io.Int.Input(
                    "overlap",
                    default=DEFAULT_OVERLAP,
                    min=0,
                    max=255,
                    tooltip="Frames that neighbouring windows share. More is smoother and slower; less than the "
                    "window. 4 is official.",
                ),
                io.Combo.Input(
                    "loop",
                    options=LOOPS,
                    default="closed",
                    tooltip="closed: the last window goes on with the first frames, as published; the end fits the "
                    "beginning. open: the last window ends with the last frame.",
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def validate_inputs(cls, window_size=None, overlap=None) -> bool | str:
        """Impossible windows are refused when the workflow is queued."""
        if window_size is None or overlap is None:  # comes from another node; execute looks at it
            return True
        return refusal(cls, lambda: _check(window_size, overlap))

    @classmethod
    def execute(cls, model, window_size: int, overlap: int, loop: str) -> io.NodeOutput:
        expect_anyone_model(model)
        one_of("loop", loop, LOOPS)
        _check(window_size, overlap)
        check_window(model.model.diffusion_model.unet, window_size)
        options = AnyoneOptions(window_size=window_size, overlap=overlap, loop=loop)
        patched = model.clone()
        patched.model_options = {**patched.model_options, "context_handler": RingWindows(options)}
        comfy.context_windows.create_prepare_sampling_wrapper(patched)  # memory is estimated for one window
        return io.NodeOutput(patched)


class RingWindows(ClipWindows):
    """Animate Anyone's windows: every frame of a window counts alike."""

    weights_of: Callable[[int], Tensor] = staticmethod(equal_weights)

    def __init__(self, options: AnyoneOptions):
        super().__init__(options.window_size)
        self._options = options

    def windows(self, num_frames: int) -> list[list[int]]:
        return self._options.windows(num_frames)


def _check(window_size: int, overlap: int) -> None:
    check_windows(window_size + 1, window_size, overlap, least_overlap=0)
