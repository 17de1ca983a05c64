"""Statistics over runs: intervals, tests of differences, power, corrections. Nothing here draws random numbers."""

from sdsbench.results.statistics.contrasts import (
    Comparison,
    concluded,
    mcnemar,
    paired_crossed,
    paired_seeds,
    pooled_variance,
    unpaired_crossed,
    unpaired_seeds,
)
from sdsbench.results.statistics.correction import holm
from sdsbench.results.statistics.intervals import Interval, t_interval
from sdsbench.results.statistics.pooled_effect import PooledEffect, pooled_effect
from sdsbench.results.statistics.variances import Needed, Variances, needed

__all__ = [
    "Comparison",
    "Interval",
    "Needed",
    "PooledEffect",
    "Variances",
    "concluded",
    "holm",
    "mcnemar",
    "needed",
    "paired_crossed",
    "paired_seeds",
    "pooled_effect",
    "pooled_variance",
    "t_interval",
    "unpaired_crossed",
    "unpaired_seeds",
]
