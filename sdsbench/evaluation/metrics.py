"""Standard metrics by name, from scikit-learn and scipy, imported when first needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

Numbers = Sequence[float]


def compute(metric: str, predictions: Numbers, references: Numbers) -> float:
    """A metric of predicted against true labels: accuracy and f1 in 0..1, the correlations in -1..1.

    A correlation that is not defined, because all predictions are equal, is 0: a constant knows nothing.
    Raises KeyError for a metric that is not in METRICS.
    """
    if metric not in METRICS:
        raise KeyError(f"metric {metric!r}: accepted: {', '.join(METRICS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input, which is handled below
        value = float(METRICS[metric](references, predictions))
    return 0.0 if math.isnan(value) else value


def _accuracy(references: Numbers, predictions: Numbers) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(references, predictions)


def _f1(references: Numbers, predictions: Numbers) -> float:
    """Of the class with number 1, as GLUE defines it."""
    from sklearn.metrics import f1_score

    return f1_score(references, predictions, zero_division=0.0)


def _matthews(references: Numbers, predictions: Numbers) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(references, predictions)


def _pearson(references: Numbers, predictions: Numbers) -> float:
    from scipy.stats import pearsonr

    return pearsonr(references, predictions).statistic


def _spearman(references: Numbers, predictions: Numbers) -> float:
    from scipy.stats import spearmanr

    return spearmanr(references, predictions).statistic


METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": _accuracy, "f1": _f1, "matthews": _matthews, "pearson": _pearson, "spearman": _spearman,
}  # fmt: skip
