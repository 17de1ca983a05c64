"""The rate at which a loss curve decreases, and its dependence on the condition number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdsbench.results.statistics.intervals import Interval, t_interval

CONVERGED = 1e-20
"""Relative excess loss below which fp64 values are dominated by rounding."""
SLOWEST = 1e-7
"""Smaller rates (nats per step) are set to this value: the curve does not decrease."""


def clipped(excess_T: np.ndarray, floor: float) -> np.ndarray:
    """Excess loss relative to its start, clipped at the rounding level (which includes the floor's rounding)."""
    return np.maximum(excess_T, rounding_level(excess_T, floor)) / excess_T[0]


def rounding_level(excess_T: np.ndarray, floor: float) -> float:
    """The excess loss below which fp64 rounding dominates, from the start's and the floor's magnitude."""
    return max(CONVERGED * float(excess_T[0]), 1e-12 * abs(floor))


def asymptotic_rate(excess_T: np.ndarray, floor: float = 0.0) -> float:
    """Rate in nats per step: decrease of log(excess loss) in the second half of the descent; NaN if diverged.

    The descent ends at the first step at rounding level, or with the run. Its second half is dominated by the slowest
    direction, which depends on the condition number; the first half by the fastest.
    """
    if not np.isfinite(excess_T).all():
        return float("nan")
    relative_T = clipped(excess_T, floor)
    converged = np.flatnonzero(excess_T <= rounding_level(excess_T, floor))
    end = max(1, int(converged[0])) if converged.size else len(excess_T) - 1
    half = end // 2
    return max(SLOWEST, float(np.log(relative_T[half] / relative_T[end])) / (end - half))


def score(excess_T: np.ndarray, floor: float = 0.0) -> float:
    """The criterion for tuning the learning rate: mean log10 of the relative excess over all steps; lower is better."""
    relative_T = clipped(excess_T, floor)
    return float(np.log10(relative_T).mean()) if np.isfinite(relative_T).all() else float("inf")


def exponent(conditions: Sequence[float], rates: Sequence[Sequence[float]]) -> Interval:
    """p in rate ~ condition^-p with its t-interval over seeds; one least-squares fit in log-log scale per seed.

    rates[i][j]: condition i, seed j. Seeds with a diverged run are left out. Raises ValueError if none is left.
    """
    table = np.array(rates, float)
    whole = np.isfinite(table).all(axis=0)
    slopes = [-np.polyfit(np.log(conditions), np.log(table[:, seed]), 1)[0] for seed in np.flatnonzero(whole)]
    return t_interval(slopes)
