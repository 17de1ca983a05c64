"""Statistics over runs: intervals, paired tests, corrections, effect sizes. Only `np.random.default_rng(seed)`."""

from sdsbench.results.statistics.correction import holm
from sdsbench.results.statistics.effects import (
    interquartile_mean,
    minimum_detectable_effect,
    probability_of_improvement,
    seeds_needed,
)
from sdsbench.results.statistics.intervals import Interval, paired_t_interval, t_interval
from sdsbench.results.statistics.paired import Comparison, hierarchical_bootstrap, mcnemar, paired_bootstrap, seed_test

__all__ = [
    "Comparison",
    "Interval",
    "hierarchical_bootstrap",
    "holm",
    "interquartile_mean",
    "mcnemar",
    "minimum_detectable_effect",
    "paired_bootstrap",
    "paired_t_interval",
    "probability_of_improvement",
    "seed_test",
    "seeds_needed",
    "t_interval",
]
