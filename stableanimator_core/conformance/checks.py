"""Rows of a conformance report: how far a result is from its golden, and how far it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .golden import Golden
from .thinned import Expected, Sampled, values_of


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what was compared.
        error: how far off it is, in the unit of `tolerance`.
        tolerance: the largest error that passes.
        unit: what the numbers mean ("rel", "abs", "share", "count").
    """

    name: str
    error: float
    tolerance: float
    unit: str = "rel"

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # False for NaN too


Case = Callable[[Golden], Iterable[Row]]
CASES: dict[str, Case] = {}


def case(*stems: str) -> Callable[[Case], Case]:
    """Register a function for golden files of these names (`pose_net`) or families (`pipeline_*`)."""

    def register(function: Case) -> Case:
        for stem in stems:
            CASES[stem] = function
        return function

    return register


def relative(name: str, got: Tensor, golden: Expected, tolerance: float) -> Row:
    """Largest absolute difference over the golden's largest absolute value."""
    largest = values_of(golden).double().abs().max().clamp_min(1e-300)
    return Row(name, float(differences(got, golden).abs().max() / largest), tolerance, "rel")


def absolute(name: str, got: Tensor, golden: Expected, tolerance: float) -> Row:
    """Largest absolute difference."""
    return Row(name, float(differences(got, golden).abs().max()), tolerance, "abs")


def mean_absolute(name: str, got: Tensor, golden: Expected, tolerance: float) -> Row:
    """Mean absolute difference."""
    return Row(name, float(differences(got, golden).abs().mean()), tolerance, "mean abs")


def close(name: str, got: Tensor, golden: Expected, *, rtol: float, atol: float) -> Row:
    """Largest |difference| / (atol + rtol |golden|); passes up to 1, as torch.allclose does."""
    allowed = atol + rtol * values_of(golden).double().abs()
    return Row(name, float((differences(got, golden).abs() / allowed).max()), 1.0, "of allowed")


def exact(name: str, got: object, golden: object) -> Row:
    """Equality of tensors, lists or numbers; the error is 0 or 1, for tensors the share that differs."""
    if isinstance(got, Tensor) and isinstance(golden, Tensor | Sampled):
        if tuple(got.shape) != tuple(golden.shape):
            return Row(name, 1.0, 0.0, "share")
        ours, theirs = (golden.of(got), golden.values) if isinstance(golden, Sampled) else (got, golden)
        return Row(name, float((ours != theirs).double().mean()) if ours.numel() else 0.0, 0.0, "share")
    return Row(name, 0.0 if got == golden else 1.0, 0.0, "share")


def differing_share(name: str, got: Tensor, golden: Expected, *, beyond: float, tolerance: float) -> Row:
    """Share of the elements that differ by more than `beyond`; NaN and other shapes differ."""
    within = differences(got, golden).abs() <= beyond  # False for NaN
    return Row(name, float((~within).double().mean()), tolerance, "share")


def differences(got: Tensor, golden: Expected) -> Tensor:
    """got - golden in float64, element by element; of a sampled golden the sampled ones, [n].

    [1] of NaN, which no row lets pass, if the shapes differ or if `got` is NaN where a sampled golden does not look.
    """
    if tuple(got.shape) != tuple(golden.shape):
        return torch.full((1,), float("nan"), dtype=torch.float64)
    if not isinstance(golden, Sampled):
        return got.double() - golden.double()
    if not bool(got.isfinite().all()):
        return torch.full((1,), float("nan"), dtype=torch.float64)
    return golden.of(got).double() - golden.values.double()
