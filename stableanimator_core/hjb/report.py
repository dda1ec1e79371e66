"""What the face optimisation did: losses, cosines to the reference, settings and warnings, step by step.

Axes: f frames; a cosine is None in frames without a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

from torch import Tensor

Cosines = list[float | None]


def cosine_list(cosines: Tensor) -> Cosines:
    """Cosines [f], NaN without a face, as plain numbers."""
    return [None if isnan(value) else value for value in cosines.tolist()]


def mean_cosine(cosines: Sequence[float | None]) -> float | None:
    """The mean over the frames with a face; None if there is none."""
    seen = [value for value in cosines if value is not None]
    return sum(seen) / len(seen) if seen else None


@dataclass
class StepReport:
    """One optimised step.

    Attributes:
        step, sigma, learning_rate: where in the sampling it was, and the rate used there.
        setting: how the loss was computed, in words.
        losses: before each iteration.
        cosines: before each iteration, per frame.
        cosine_after: after the last iteration, per frame, where it was measured.
        seconds: it took.
    """

    step: int
    sigma: float
    learning_rate: float
    setting: str = ""
    losses: list[float] = field(default_factory=list)
    cosines: list[Cosines] = field(default_factory=list)
    cosine_after: Cosines | None = None
    seconds: float = 0.0

    @property
    def before(self) -> Cosines:
        """Cosines of the untouched prediction."""
        return self.cosines[0] if self.cosines else []

    @property
    def last_seen(self) -> Cosines:
        """Cosines after the step if they were measured, else before its last iteration."""
        if self.cosine_after is not None:
            return self.cosine_after
        return self.cosines[-1] if self.cosines else []


@dataclass
class HJBReport:
    """A whole run.

    Attributes:
        steps: the steps that were optimised, in order.
        warnings: what went wrong or was changed on the way, in words.
    """

    steps: list[StepReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """A few lines for people."""
        if not self.steps:
            return "\n".join(["HJB: no step was optimised.", *self.warnings])
        first, last = self.steps[0], self.steps[-1]
        seconds = sum(step.seconds for step in self.steps)
        before, after = mean_cosine(first.before), mean_cosine(last.last_seen)
        lines = [
            f"HJB: steps {first.step} to {last.step} ({len(self.steps)}), {seconds:.1f} s, {last.setting}.",
            f"Mean cosine to the reference face: {_number(before)} before, {_number(after)} after.",
        ]
        return "\n".join(lines + [f"Warning: {warning}" for warning in self.warnings])


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
