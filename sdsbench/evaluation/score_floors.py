"""What a model that learned nothing reaches: the floor that every score is read against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sdsbench.evaluation import metrics


def constant_floor(metric: str, labels: Sequence[float]) -> float:
    """The best value of a metric that one prediction for all rows reaches: the majority class for accuracy.

    A correlation with a constant is 0.
    """
    if metric in ("pearson", "spearman", "matthews"):
        return 0.0
    counts = Counter(labels)
    if metric == "accuracy":
        return max(counts.values()) / len(labels)
    return max(metrics.compute(metric, [label] * len(labels), labels) for label in sorted(counts))


def chance_floor(choices: Sequence[int]) -> float:
    """The accuracy that guessing is expected to reach, from the number of choices of every question."""
    return sum(1 / count for count in choices) / len(choices)
