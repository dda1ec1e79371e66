"""How sure a mean, or a mean difference of pairs, is.

Efron 1987, Better bootstrap confidence intervals (BCa), and the sign-flip permutation test, both by scipy. The
units are clips: each shows another person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEED = 0
RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over clips.

    Attributes:
        mean: of `count` clips; NaN without any.
        low, high: ends of the 95 % interval; NaN for fewer than two clips.
        p: two-sided, of a mean difference against none; None where nothing was compared.
    """

    count: int
    mean: float
    low: float
    high: float
    p: float | None = None


def mean_with_interval(values: Sequence[float]) -> Estimate:
    """The mean, and its bootstrap interval."""
    low, high = _interval(np.asarray(values, dtype=np.float64))
    return Estimate(len(values), float(np.mean(values)) if len(values) else np.nan, low, high)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Mean of `values` less `others`, clip by clip, with its interval and p.

    Under "no difference" the two values of a clip could change places. All ways to do so are tried if there are
    no more than `RESAMPLES`, else as many drawn ones.
    """
    from scipy.stats import permutation_test

    a, b = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    low, high = _interval(a - b)
    mean = float((a - b).mean()) if len(a) else np.nan
    if len(a) < 2:
        return Estimate(len(a), mean, low, high)
    test = permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return Estimate(len(a), mean, low, high, float(test.pvalue))


def _interval(values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import bootstrap

    if len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
