"""Confidence intervals over seeds, from one number per seed; Student's t because seeds are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided 95 % confidence interval; `low` and `high` are NaN if n is 1."""

    mean: float
    low: float
    high: float
    n: int
    deviation: float = float("nan")
    """Standard deviation of one observation (n - 1 in the denominator)."""

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def t_quantile(freedom: int) -> float:
    """Half-width of a two-sided 95 % t-interval in standard errors; `freedom`: degrees of freedom."""
    return -float(special.stdtrit(freedom, (1 - 0.95) / 2))


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of independent values with its 95 % t-interval. Raises ValueError for an empty sequence."""
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    deviation = float(x.std(ddof=1))
    half = t_quantile(x.size - 1) * deviation / float(np.sqrt(x.size))
    return Interval(mean, mean - half, mean + half, int(x.size), deviation)
