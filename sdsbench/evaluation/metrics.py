"""Standard metrics by name, from scikit-learn and scipy, imported when first needed."""

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
"""f1: of the class with number 1, as GLUE defines it."""


def compute(metric: str, predictions: Numbers, references: Numbers) -> float:
    """A metric of predicted against true labels: accuracy and f1 in 0..1, the correlations in -1..1.

    A correlation that is not defined, because all predictions are equal, is 0: a constant knows nothing.
    Raises KeyError for a metric that is not in METRICS.
    """
    if metric not in METRICS:
        raise KeyError(f"metric {metric!r}: accepted: {', '.join(METRICS)}")
    options = {"zero_division": 0.0} if metric == "f1" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input, which is handled below
        found = pkgutil.resolve_name(METRICS[metric])(references, predictions, **options)
    value = float(getattr(found, "statistic", found))  # scipy's correlations come with their p-values
    return 0.0 if math.isnan(value) else value


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """A mean over questions and its standard error, None of a single one."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
