"""Score floors: what a model reaches that has learned nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sdsbench.evaluation import metrics


def constant_floor(metric: str, labels: Sequence[float]) -> float:
    """Best value of a metric under a constant prediction: for accuracy, the share of the majority class.

    The correlation with a constant counts as 0.
    """
    if metric in ("pearson", "spearman", "matthews"):
        return 0.0
    counts = Counter(labels)
    if metric == "accuracy":
        return max(counts.values()) / len(labels)
    return max(metrics.compute(metric, [label] * len(labels), labels) for label in sorted(counts))


def chance_floor(choices: Sequence[int]) -> float:
    """Expected accuracy of random guessing, given the number of choices of every question."""
    return sum(1 / count for count in choices) / len(choices)
