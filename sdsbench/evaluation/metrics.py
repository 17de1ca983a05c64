"""Standard metrics by name, through `evaluate` and this project's local metric module, imported when first needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

MetricName = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]


def compute(metric: str, predictions: Sequence[float], references: Sequence[float]) -> float:
    """A metric of predicted against true labels: accuracy and f1 in 0..1, the correlations in -1..1.

    A correlation that is not defined, because all predictions are equal, is 0: a constant knows nothing.
    Raises KeyError for a metric that the local module does not have.
    """
    from sdsbench.evaluation.metric_functions import FUNCTIONS, LabelledMetrics

    if metric not in FUNCTIONS:
        raise KeyError(f"metric {metric!r}: accepted: {', '.join(FUNCTIONS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input, which is handled below
        module = LabelledMetrics(config_name=metric, keep_in_memory=True)
        value = module.compute(predictions=list(predictions), references=list(references))[metric]
    return 0.0 if math.isnan(value) else value
