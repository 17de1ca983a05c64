"""Confidence intervals over seeds. A single number per seed, few seeds: Student's t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided confidence interval; `low` and `high` are NaN where n is 1."""

    mean: float
    low: float
    high: float
    n: int
    deviation: float = float("nan")
    """Standard deviation of one observation (n - 1 in the denominator)."""

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values with its t-interval. Raises ValueError where there are none."""
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    deviation = float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, x.size - 1)) * deviation / float(np.sqrt(x.size))
    return Interval(mean, mean - half, mean + half, int(x.size), deviation)


def paired_by_seed(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[list[int], list[float]]:
    """Seeds that both have, ascending, and the differences ours - theirs."""
    seeds = sorted(set(ours) & set(theirs))
    return seeds, [ours[seed] - theirs[seed] for seed in seeds]


def paired_t_interval(ours: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95) -> Interval:
    """Interval of the mean difference ours - theirs over common seeds. Raises ValueError where no seed is common.

    Equal seeds share the data order, so pairing removes the part of the noise that both runs have.
    """
    seeds, differences = paired_by_seed(ours, theirs)
    if not seeds:
        raise ValueError(f"no common seed: {sorted(ours)} and {sorted(theirs)}")
    return t_interval(differences, confidence)
