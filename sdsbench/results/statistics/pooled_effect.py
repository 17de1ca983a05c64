"""Random-effects meta-analysis: the mean effect over contexts (tasks, models, ranks) and its heterogeneity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sdsbench.results.statistics.contrasts import Comparison


@dataclass(frozen=True)
class PooledEffect:
    """Mean effect of a random-effects model with its 95 % interval, and the heterogeneity between contexts."""

    mean: float
    low: float
    high: float
    between: float  # standard deviation of the true effects between contexts (tau)
    share: float  # of the variance that lies between contexts (I^2), 0 to 1


def pooled_effect(comparisons: Sequence[Comparison]) -> PooledEffect | None:
    """DerSimonian and Laird's (1986) estimator with the interval of Hartung and Knapp (2001); None below two contexts.

    Contexts without a test are left out. (Not statsmodels' combine_effects, which divides by 0 if contexts differ less
    than expected by chance.)
    """
    known = [c for c in comparisons if c.variances is not None and c.variances.testable]
    if len(known) < 2:
        return None
    effects = np.array([c.difference for c in known])
    variances = np.array([c.variances.total for c in known if c.variances])
    freedom = len(known) - 1
    weights = 1 / variances
    fixed = float(np.average(effects, weights=weights))
    q = float((weights * (effects - fixed) ** 2).sum())
    scale = float(weights.sum() - (weights**2).sum() / weights.sum())
    between = max(0.0, (q - freedom) / scale)
    weights = 1 / (variances + between)
    mean = float(np.average(effects, weights=weights))
    error = float(np.sqrt((weights * (effects - mean) ** 2).sum() / freedom / weights.sum()))
    half = float(stats.t.isf(0.025, freedom)) * max(error, float(np.sqrt(1 / weights.sum())))
    share = max(0.0, 1 - freedom / q) if q > 0 else 0.0
    return PooledEffect(mean, mean - half, mean + half, between**0.5, share)
