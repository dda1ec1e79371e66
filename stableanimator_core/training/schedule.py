"""The learning rate of every step."""

from __future__ import annotations

import math

from .settings import Optimizer


def learning_rate(step: int, steps: int, optimizer: Optimizer) -> float:
    """The rate of a step, counted from 0: a linear rise, then constant, linear or half a cosine down to 0.

    It ends at `steps`, or at `optimizer.schedule_steps` if given.
    """
    steps = optimizer.schedule_steps or steps
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / (optimizer.warmup_steps + 1)
    share = min(1.0, (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps))
    factors = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return optimizer.learning_rate * factors[optimizer.schedule]
