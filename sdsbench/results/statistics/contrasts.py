"""Tests of the difference between two methods.

| function | random effects | paired over seeds | data |
|---|---|---|---|
| `paired_seeds` | seeds | yes | one score per seed |
| `unpaired_seeds` | seeds | no | one score per seed |
| `paired_crossed` | seeds and questions | yes | scores of several seeds on the same questions |
| `unpaired_crossed` | seeds and questions | no | scores of several seeds on the same questions |

results/tables/contrast.py selects the test by a rule that does not depend on the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdsbench.results.statistics.variances import Variances

NAN = float("nan")
Pooled = tuple[float, float]  # (variance between seeds of one method, its degrees of freedom)


@dataclass(frozen=True)
class Comparison:
    """A difference ours - theirs with its interval and two-sided p-value (NaN if there is no test).

    `seeds` is the smaller number of seeds of the two sides.
    """

    test: str
    difference: float
    low: float
    high: float
    p_value: float
    seeds: int
    questions: int
    variances: Variances | None = None


def concluded(
    test: str, difference: float, variances: Variances, seeds: int, questions: int = 0, confidence: float = 0.95
) -> Comparison:
    """The Comparison for a mean difference and its variances.

    If every seed differs by the same amount, no test is possible: interval and p are NaN however large the difference
    is, and however much the questions vary.
    """
    half = variances.half_width(confidence)
    p_value = variances.p_value(difference)
    return Comparison(test, difference, difference - half, difference + half, p_value, seeds, questions, variances)


def paired_seeds(ours: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95) -> Comparison:
    """Paired t-test over common seeds; arguments are seed -> score. Raises ValueError without a common seed."""
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise ValueError(f"no common seed: {sorted(ours)} and {sorted(theirs)}")
    d_s = np.array([ours[seed] - theirs[seed] for seed in seeds])
    test = "paired t over seeds"
    if d_s.size < 2:
        return Comparison(test, float(d_s[0]), NAN, NAN, NAN, 1, 0)
    return concluded(
        test, float(d_s.mean()), Variances(_variance(d_s) / d_s.size, d_s.size - 1), d_s.size, 0, confidence
    )


def unpaired_seeds(
    ours: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95, pooled: Pooled | None = None
) -> Comparison:
    """Welch's t-test over the seeds of both sides (seed -> score), or a t-test with the variance `pooled`."""
    a_s, b_s = (np.array([side[seed] for seed in sorted(side)]) for side in (ours, theirs))
    test = "Welch's t over seeds" if pooled is None else "t over seeds, pooled variance"
    difference, seeds = float(a_s.mean() - b_s.mean()), min(a_s.size, b_s.size)
    if seeds < 2:
        return Comparison(test, difference, NAN, NAN, NAN, seeds, 0)
    of_seeds, freedom = _two_sides(_variance(a_s), a_s.size, _variance(b_s), b_s.size, pooled)
    return concluded(test, difference, Variances(of_seeds, freedom), seeds, 0, confidence)


def paired_crossed(ours_sq: np.ndarray, theirs_sq: np.ndarray, confidence: float = 0.95) -> Comparison:
    """Test of the difference of two methods over S seeds x Q questions, both random effects; rows are paired by seed.

    Model: D[s, q] = mean + seed effect + question effect + residual (crossed random effects), variances estimated by
    moments (McCullagh 2000). The variance of the seed means includes its share of the residual; the same share is
    subtracted from the variance of the question means, so that the residual is counted once.

    Both arrays are S x Q with equal seeds and questions. Raises ValueError for unequal shapes or below 2 x 2.
    """
    if ours_sq.shape != theirs_sq.shape or ours_sq.ndim != 2 or min(ours_sq.shape) < 2:
        raise ValueError(f"two equal tables of at least 2 x 2 are needed, not {ours_sq.shape} and {theirs_sq.shape}")
    d_sq = np.asarray(ours_sq, dtype=float) - np.asarray(theirs_sq, dtype=float)
    seeds, questions = d_sq.shape
    of_seeds = _variance(d_sq.mean(axis=1)) / seeds
    rest = _rest(d_sq)
    of_questions = max(_variance(d_sq.mean(axis=0)) - rest / seeds, 0.0) / questions
    variances = _not_below(
        Variances(of_seeds, seeds - 1, of_questions, questions - 1),
        rest / (seeds * questions),
        (seeds - 1) * (questions - 1),
    )
    test = "t over paired seeds and questions (crossed variances)"
    return concluded(test, float(d_sq.mean()), variances, seeds, questions, confidence)


def unpaired_crossed(
    ours_sq: np.ndarray, theirs_sq: np.ndarray, confidence: float = 0.95, pooled: Pooled | None = None
) -> Comparison:
    """As paired_crossed, but the seeds of the two sides are independent; the questions are the same.

    The variance over seeds is Welch's (or `pooled`, if given). The variance over questions is that of the difference of
    the two per-question means, minus the share of the residuals in it.

    The arrays are S x Q and T x Q. Raises ValueError for other shapes or below 2 x 2.
    """
    if ours_sq.ndim != 2 or theirs_sq.ndim != 2 or ours_sq.shape[1] != theirs_sq.shape[1]:
        raise ValueError(f"two tables with the same questions are needed, not {ours_sq.shape} and {theirs_sq.shape}")
    if min(*ours_sq.shape, *theirs_sq.shape) < 2:
        raise ValueError(f"two seeds and two questions are needed, not {ours_sq.shape} and {theirs_sq.shape}")
    sides = [np.asarray(side, dtype=float) for side in (ours_sq, theirs_sq)]
    questions = sides[0].shape[1]
    (s, a_variance), (t, b_variance) = ((len(side), _variance(side.mean(axis=1))) for side in sides)
    of_seeds, freedom = _two_sides(a_variance, s, b_variance, t, pooled)
    rest = sum(_rest(side) / len(side) for side in sides)
    d_q = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    of_questions = max(_variance(d_q) - rest, 0.0) / questions
    variances = _not_below(
        Variances(of_seeds, freedom, of_questions, questions - 1),
        rest / questions,
        (s + t - 2) * (questions - 1),
    )
    test = "t over unpaired seeds and questions (crossed variances" + (", pooled)" if pooled else ")")
    return concluded(test, float(d_q.mean()), variances, min(s, t), questions, confidence)


def pooled_variance(groups: Sequence[Sequence[float]]) -> Pooled | None:
    """The pooled variance between seeds over several methods' scores; None if no method has two seeds."""
    usable = [np.asarray(group, dtype=float) for group in groups if len(group) > 1]
    freedom = sum(group.size - 1 for group in usable)
    return (sum(_variance(group) * (group.size - 1) for group in usable) / freedom, freedom) if freedom else None


def _variance(values: np.ndarray) -> float:
    """Sample variance; exactly 0 for equal numbers, despite rounding."""
    variance = float(values.var(ddof=1))
    return 0.0 if variance <= (1e-12 * max(1.0, float(np.abs(values).max()))) ** 2 else variance


def _rest(table_sq: np.ndarray) -> float:
    """Residual variance: what neither seed nor question effects explain."""
    seeds, questions = table_sq.shape
    rest_sq = table_sq - table_sq.mean(axis=1, keepdims=True) - table_sq.mean(axis=0) + table_sq.mean()
    variance = float((rest_sq**2).sum()) / ((seeds - 1) * (questions - 1))
    return 0.0 if variance < 1e-24 else variance


def _two_sides(a: float, s: int, b: float, t: int, pooled: Pooled | None) -> tuple[float, float]:
    """Variance of a difference of two means over s and t seeds, and its degrees of freedom (Welch 1947)."""
    if pooled is not None:
        return pooled[0] * (1 / s + 1 / t), pooled[1]
    a, b = a / s, b / t
    if a + b == 0:
        return 0.0, s + t - 2
    return a + b, (a + b) ** 2 / (a**2 / (s - 1) + b**2 / (t - 1))


def _not_below(variances: Variances, least: float, freedom: float) -> Variances:
    """The variances, but at least the residual's: by chance the estimated effects can be smaller than that."""
    return Variances(least, freedom) if variances.testable and variances.total < least else variances
