"""How large a difference is, and how many seeds would show it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

MOST_SEEDS = 10_000


def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Probability that a run of ours scores above a run of theirs, ties counted half (Agarwal et al. 2021)."""
    u = stats.mannwhitneyu(ours, theirs, method="asymptotic").statistic
    return float(u) / (len(ours) * len(theirs))


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half of the values."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def minimum_detectable_effect(deviation: float, seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true mean difference that a paired t-test over `seeds` seeds finds with the given power.

    `deviation` is the standard deviation of one paired difference. Infinite below two seeds.
    """
    if seeds < 2:
        return math.inf
    return deviation * _solved_effect(seeds, power, alpha)


def seeds_needed(difference: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Seeds with which a paired t-test finds a true mean `difference` with the given power; at least 2.

    None where more than 10,000 would be needed (the difference is as good as nothing).
    """
    if deviation == 0:
        return 2
    if difference == 0:
        return None
    effect = abs(difference) / deviation
    low, high = 2, MOST_SEEDS
    if _power(effect, high, alpha) < power:
        return None
    while low < high:
        middle = (low + high) // 2
        if _power(effect, middle, alpha) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def _power(effect: float, seeds: int, alpha: float) -> float:
    """Power of a two-sided paired t-test (statsmodels' TTestPower gives NaN where its lower tail underflows)."""
    freedom, shift = seeds - 1, effect * math.sqrt(seeds)
    critical = stats.t.isf(alpha / 2, freedom)
    with np.errstate(all="ignore"):
        lower = np.nan_to_num(stats.nct.cdf(-critical, freedom, shift))
        upper = stats.nct.sf(critical, freedom, shift)
    return float(upper + lower)


def _solved_effect(seeds: int, power: float, alpha: float) -> float:
    """Effect size in standard deviations, by bisection: statsmodels' solver fails at two and three seeds."""
    low, high = 0.0, 100 / math.sqrt(seeds)
    for _ in range(60):
        middle = (low + high) / 2
        if _power(middle, seeds, alpha) < power:
            low = middle
        else:
            high = middle
    return high
