"""Face optimisation as a thing a sampler calls once per step: it keeps the networks, the report and the
settings.

Axes: f frames, c channels, h w height and width of latents, e identity embedding.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.vae import SCALING_FACTOR
from ..sigmas import StepHook
from .budget import OUT_OF_MEMORY, first_setting, steps_down
from .copies import usable_copy
from .identity_loss import Faces, IdentityLoss, faces_of_clip, pixels_of
from .options import HJBOptions, Setting
from .refine import Iteration, refine_x0
from .regions import Box
from .report import HJBReport, StepReport, cosine_list

logger = logging.getLogger(__name__)


class _NothingSmallerError(Exception):
    """Even the smallest way to compute the loss ran out of memory."""


class HJBRefiner:
    """Pulls the faces of a clip towards a reference identity at each step of a sampling.

    Between `begin` and the last active step it may hold copies of the networks on the device of the latents;
    `close` lets them go, and so do an error and a cancel. The networks themselves are never changed.

    Args:
        decoder: `vae.decoder` of an `AutoencoderKLTemporalDecoder`, of any size.
        embedder: face network, [n 3 112 112] in [-1, 1] RGB -> [n e].
        identity: the reference face by the same network, [e] or [1 e]; see `identity_of_portrait`.
        face_boxes: boxes of each frame in pixels of the generated picture; none where no face is seen.
        options: when and how.
        on_iteration: told of each step and iteration; may raise to cancel.
        scaling_factor: latents of the model are those of the VAE times this.

    Attributes:
        report: of the running or last sampling.

    Raises:
        InputError: the identity has no direction (zeros or not finite).
    """

    def __init__(
        self,
        decoder: nn.Module,
        embedder: nn.Module,
        identity: Tensor,
        face_boxes: Sequence[Sequence[Box]],
        options: HJBOptions | None = None,
        *,
        on_iteration: Callable[[int, Iteration], None] | None = None,
        scaling_factor: float = SCALING_FACTOR,
    ):
        length = float(identity.float().norm())
        if not 0 < length < float("inf"):
            problem = "is all zeros or not finite, so there is nothing to pull the faces towards"
            raise InputError("reference identity", problem, "use a portrait in which a face is found")
        self.decoder, self.embedder, self.identity = decoder, embedder, identity
        self.face_boxes = [list(boxes) for boxes in face_boxes]
        self.options = options or HJBOptions()
        self.on_iteration, self.scaling_factor = on_iteration, scaling_factor
        self.begin([])

    def begin(self, sigmas: Sequence[float] | Tensor) -> None:
        """Start a sampling down `sigmas` (num_steps + 1 of them, the last 0) with an empty report."""
        self.close()
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.report = HJBReport()
        self._gave_up = False

    def close(self) -> None:
        """Let go of everything held for the sampling."""
        self._loss: IdentityLoss | None = None
        self._smaller: Iterator[tuple[Setting, str]] = iter(())
        self._steps_since_statistics = 0

    def hook(self, sigmas: Tensor) -> StepHook:
        """Begin, and the refiner as `on_x0` of `sample_euler`."""
        self.begin(sigmas)
        return lambda step, x0: self(x0, float(sigmas[step]), step)

    def step_of(self, sigma: float) -> int:
        """The step a noise level belongs to: the last one that began at this level or above."""
        return max(
            (step for step, began in enumerate(self.sigmas[:-1]) if began >= sigma * (1 - 1e-4)), default=0
        )

    def __call__(self, x0: Tensor, sigma: float, step: int | None = None) -> Tensor:
        """The refined `x0`; `x0` itself where the optimisation is not active. Works under inference mode.

        Args:
            x0: predicted clean latents [f c h w] or [1 f c h w], in the model's scale.
            sigma: noise level of this model call.
            step: its number; found from `sigma` if left out.

        Raises:
            InputError: the frames do not fit the face boxes, or no frame has a face.
        """
        sigma = float(sigma)
        step = self.step_of(sigma) if step is None else step
        if self._gave_up or not self._active(step, sigma):
            return x0
        with ExitStack() as on_error:
            on_error.callback(self.close)
            refined = self._refine(x0.flatten(0, -4), sigma, step).reshape(x0.shape)
            on_error.pop_all()
        if not any(self._active(later, self.sigmas[later]) for later in range(step + 1, self._num_steps)):
            self.close()
        return refined

    @property
    def _num_steps(self) -> int:
        return max(len(self.sigmas) - 1, 1)

    def _active(self, step: int, sigma: float) -> bool:
        return self.options.active(step, sigma, self._num_steps)

    def _refine(self, x0: Tensor, sigma: float, step: int) -> Tensor:
        learning_rate = self.options.learning_rate_at(step, self._num_steps)
        entry = StepReport(step, sigma, learning_rate)
        started = time.perf_counter()
        self._renew_statistics()

        def note(iteration: Iteration) -> None:
            entry.losses.append(iteration.loss)
            entry.cosines.append(cosine_list(self._loss.cosines) if self._loss else [])
            if iteration.skipped:
                self._warn(f"step {step}, iteration {iteration.index} skipped: {iteration.skipped}")
            if self.on_iteration is not None:
                self.on_iteration(step, iteration)

        try:
            refined = refine_x0(
                x0,
                self._value,
                iterations=self.options.iterations,
                learning_rate=learning_rate,
                on_iteration=note,
            )
        except _NothingSmallerError:
            self._give_up(step)
            return x0
        if self._wants_measure(step):
            entry.cosine_after = self._measure(refined)
        entry.setting = str(self._loss.setting) if self._loss else ""
        entry.seconds = time.perf_counter() - started
        self.report.steps.append(entry)
        return refined

    def _value(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient; computed in a smaller way, once more, whenever the memory does not suffice."""
        while True:
            try:
                if self._loss is None:
                    self._loss = self._prepare(latents)
                return self._loss(latents)
            except OUT_OF_MEMORY:
                pass  # leave the handler first: the error holds on to everything that was being computed
            self._shrink(latents)

    def _prepare(self, latents: Tensor) -> IdentityLoss:
        faces = faces_of_clip(self.face_boxes, *pixels_of(latents), several=self.options.several)
        setting = first_setting(self.options, self.decoder, self.embedder, faces, *latents.shape[-2:])
        self._smaller = steps_down(setting)
        return self._loss_for(setting, faces, latents.device)

    def _loss_for(self, setting: Setting, faces: Faces, device: torch.device) -> IdentityLoss:
        decoder = usable_copy(self.decoder, dtype=setting.dtype, device=device)
        embedder = usable_copy(self.embedder, device=device)
        identity = self.identity.detach().clone().float().to(device)
        return IdentityLoss(
            decoder,
            embedder,
            identity,
            faces,
            setting,
            margin=self.options.region_margin,
            scaling_factor=self.scaling_factor,
            on_warning=self._warn,
        )

    def _shrink(self, latents: Tensor) -> None:
        """Go on with the next smaller setting."""
        if latents.is_cuda:
            torch.cuda.empty_cache()
        smaller = next(self._smaller, None)
        if self._loss is None or smaller is None:
            raise _NothingSmallerError
        setting, warning = smaller
        faces, self._loss = self._loss.faces, None
        self._loss = self._loss_for(setting, faces, latents.device)
        self._warn(f"out of memory, going on with: {setting}" + (f"; {warning}" if warning else ""))

    def _give_up(self, step: int) -> None:
        self._gave_up = True
        self.close()
        remedy = "use a smaller picture, mode fast, or a shorter chunk"
        self._warn(f"out of memory: from step {step} on the faces are not optimised any more; {remedy}")

    def _renew_statistics(self) -> None:
        if self._loss is None:
            return
        self._steps_since_statistics += 1
        if self._steps_since_statistics >= self.options.statistics_every:
            self._loss.forget_statistics()
            self._steps_since_statistics = 0

    def _wants_measure(self, step: int) -> bool:
        if self.options.measure != "last":
            return self.options.measure == "every"
        later = range(step + 1, self._num_steps)
        return not any(self._active(other, self.sigmas[other]) for other in later)

    def _measure(self, latents: Tensor) -> list[float | None] | None:
        if self._loss is None:
            return None
        try:
            return cosine_list(self._loss.measure(latents))
        except OUT_OF_MEMORY:
            self._warn("out of memory while measuring the faces after the optimisation; not measured")
            return None

    def _warn(self, message: str) -> None:
        if message not in self.report.warnings:
            logger.warning("HJB: %s", message)
            self.report.warnings.append(message)
