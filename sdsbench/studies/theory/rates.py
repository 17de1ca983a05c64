"""How fast a curve falls, and how that depends on the condition number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdsbench.results.statistics.intervals import Interval, t_interval

CONVERGED = 1e-20
"""Excess loss relative to the start below which fp64 shows rounding only."""
SLOWEST = 1e-7
"""Rates below this (nats a step) count as this: the curve does not fall."""


def clipped(excess_T: np.ndarray, floor: float) -> np.ndarray:
    """The excess relative to its start, cut where rounding begins (the floor's own rounding included)."""
    return np.maximum(excess_T, rounding_level(excess_T, floor)) / excess_T[0]


def rounding_level(excess_T: np.ndarray, floor: float) -> float:
    return max(CONVERGED * float(excess_T[0]), 1e-12 * abs(floor))


def asymptotic_rate(excess_T: np.ndarray, floor: float = 0.0) -> float:
    """Nats a step that the excess loses in the second half of its fall; NaN for a diverged curve.

    The fall ends at the first step at rounding level, or with the run. Its second half belongs to the slowest
    direction, which the condition number decides; the first half belongs to the fastest.
    """
    if not np.isfinite(excess_T).all():
        return float("nan")
    relative_T = clipped(excess_T, floor)
    converged = np.flatnonzero(excess_T <= rounding_level(excess_T, floor))
    end = max(1, int(converged[0])) if converged.size else len(excess_T) - 1
    half = end // 2
    return max(SLOWEST, float(np.log(relative_T[half] / relative_T[end])) / (end - half))


def score(excess_T: np.ndarray, floor: float = 0.0) -> float:
    """What the learning rate is tuned by: mean of log10 of the relative excess over all steps, lower is better."""
    relative_T = clipped(excess_T, floor)
    return float(np.log10(relative_T).mean()) if np.isfinite(relative_T).all() else float("inf")


def exponent(conditions: Sequence[float], rates: Sequence[Sequence[float]]) -> Interval:
    """p in rate ~ condition^-p with its t-interval over seeds: one least-squares line in logarithms per seed.

    rates[i][j]: condition i, seed j. Seeds with a diverged run are left out. Raises ValueError where none is left.
    """
    table = np.array(rates, float)
    whole = np.isfinite(table).all(axis=0)
    slopes = [-np.polyfit(np.log(conditions), np.log(table[:, seed]), 1)[0] for seed in np.flatnonzero(whole)]
    return t_interval(slopes)
