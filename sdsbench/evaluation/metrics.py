"""Standard metrics by name, from scikit-learn and scipy, which are imported when first needed."""

from __future__ import annotations

import math
import pkgutil
import warnings
from collections.abc import Sequence

Numbers = Sequence[float]
METRICS = {
    "accuracy": "sklearn.metrics:accuracy_score", "f1": "sklearn.metrics:f1_score",
    "matthews": "sklearn.metrics:matthews_corrcoef", "pearson": "scipy.stats:pearsonr",
    "spearman": "scipy.stats:spearmanr",
}  # fmt: skip
"""f1 is that of class 1, as in GLUE."""


def compute(metric: str, predictions: Numbers, references: Numbers) -> float:
    """A metric of predicted and true labels: accuracy and f1 in 0..1, correlations in -1..1.

    A correlation that is undefined because all predictions are equal counts as 0, that of an uninformative model.
    Raises KeyError for a metric that is not in METRICS.
    """
    if metric not in METRICS:
        raise KeyError(f"metric {metric!r}: accepted: {', '.join(METRICS)}")
    options = {"zero_division": 0.0} if metric == "f1" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input, which is handled below
        found = pkgutil.resolve_name(METRICS[metric])(references, predictions, **options)
    value = float(getattr(found, "statistic", found))  # scipy returns correlations together with p-values
    return 0.0 if math.isnan(value) else value


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """(low, high) of the 95 % interval of a share over `count` questions (Wilson, 1927), from 0 to 1."""
    z = 1.959964  # 97.5 % quantile of the normal distribution
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = ((middle + side * half) / (1 + z**2 / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean over questions, its standard error, which is None for a single question)."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
