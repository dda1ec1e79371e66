"""Settings of the HJB face optimisation: when it works, how far it goes, and how it is computed.

Defaults are those of the reference's sample command (Francis-Rings/StableAnimator @ 020e7f2) and stand only
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import InputError

Mode = Literal["exact", "late", "fast"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class HJBOptions:
    """How to pull faces towards the reference identity.

    Attributes:
        mode: "exact" is the published algorithm; "late" leaves out the steps with sigma above `late_sigma`;
            "fast" is late, decodes only the part around the faces and moves only the latents under them. Late
            and fast give another (close) result.
        late_sigma: the highest noise level late and fast work at. Of 25 steps the noisier ones can change the
            network's next input by at most 0.83 %: Adam moves a latent by the learning rate, no more.
        iterations: Adam updates per step; each decodes the clip once and goes back through it. 0 turns HJB
            off.
        learning_rate: of the first step; falls linearly to 0 over the sampling.
        start_percent, end_percent: first and last active step as a share 0..1 of the steps; both are
            included. 0..0.8 of 25 steps are the published steps 0..20.
        start_step, end_step: the same as step numbers from 0; they win over the shares if given.
        chunk: frames decoded together. The frames of a chunk mix, so another chunk gives another picture.
        several: what to do with several boxes in a frame: one box around all ("union", published) or the mean
            of their distances ("mean").
        checkpointing: one of `decoder.CHECKPOINTING`, or "auto": the fastest that fits the budget.
        precision: of the decoder; "auto" is that of its weights. Latents and Adam are always float32.
        budget_gib: memory the optimisation may take, in GiB; None for no limit. Only used by "auto".
        region_margin: fast: how many latents around a face box may move.
        statistics_every: fast: every how many steps the GroupNorm statistics are taken anew.
        measure: when the cosines after the optimisation are measured (each time costs one decoding): after
            the "last" step, "every" step or "never".
    """

    mode: Mode = "exact"
    late_sigma: float = 10.0
    iterations: int = 3
    learning_rate: float = 0.1
    start_percent: float = 0.0
    end_percent: float = 0.8
    start_step: int | None = None
    end_step: int | None = None
    chunk: int = 4
    several: Literal["union", "mean"] = "union"
    checkpointing: Literal["auto", "none", "activations", "block", "resblock"] = "auto"
    precision: Precision = "auto"
    budget_gib: float | None = None
    region_margin: int = 4
    statistics_every: int = 2
    measure: Literal["last", "every", "never"] = "last"

    def __post_init__(self) -> None:
        for name, least in [("iterations", 0), ("chunk", 1), ("region_margin", 0), ("statistics_every", 1)]:
            if getattr(self, name) < least:
                raise InputError(f"HJB {name}", f"is {getattr(self, name)}", f"give at least {least}")
        if not self.learning_rate > 0:
            raise InputError(
                "HJB learning rate", f"is {self.learning_rate}", "give a number above 0, for example 0.1"
            )
        if self.budget_gib is not None and not self.budget_gib > 0:
            raise InputError(
                "HJB memory budget", f"is {self.budget_gib} GiB", "give a number above 0, or none"
            )
        if not 0 <= self.start_percent <= self.end_percent <= 1:
            shares = f"are {self.start_percent} and {self.end_percent}"
            raise InputError("HJB start and end", shares, "give shares with 0 <= start <= end <= 1")

    @property
    def crops(self) -> bool:
        """Decode only around the faces and move only the latents under them."""
        return self.mode == "fast"

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Falls linearly to 0 over the whole sampling, whatever the active steps are."""
        return self.learning_rate * (1 - step / num_steps)

    def active(self, step: int, sigma: float, num_steps: int) -> bool:
        """Whether the optimisation works at `step` of `num_steps`, where the noise level is `sigma`."""
        start = self.start_percent * num_steps if self.start_step is None else self.start_step
        end = self.end_percent * num_steps if self.end_step is None else self.end_step
        late_enough = self.mode == "exact" or sigma <= self.late_sigma
        rounding = 1e-9 * num_steps
        return self.iterations > 0 and start - rounding <= step <= end + rounding and late_enough


@dataclass(frozen=True)
class Setting:
    """How one evaluation of the loss is computed. Checkpointing changes memory and time, never the result.

    Attributes:
        checkpointing: one of `decoder.CHECKPOINTING`.
        chunk: frames decoded together.
        dtype: of the decoder.
        crop: decode only around the faces.
    """

    checkpointing: str
    chunk: int
    dtype: torch.dtype
    crop: bool = False

    def __str__(self) -> str:
        part = "around the faces" if self.crop else "whole frames"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{part}, {self.chunk} at a time, {dtype}, checkpointing {self.checkpointing}"
