"""Metrics of labels against values that were computed by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sdsbench.evaluation.metrics as metrics


@pytest.mark.parametrize(
    ("metric", "predictions", "references", "value"),
    [
        ("accuracy", [1, 0, 1, 1], [1, 0, 0, 1], 3 / 4),
        ("f1", [1, 0, 1, 1], [1, 0, 0, 1], 4 / 5),  # 2 true, 1 false positive, 0 false negative
        ("f1", [0, 0], [1, 0], 0.0),
        ("matthews", [1, 0, 1, 1], [1, 0, 0, 1], 2 / 12**0.5),  # (2*1 - 1*0) / sqrt(3*2*2*1)
        ("matthews", [1, 1, 1, 1], [1, 0, 0, 1], 0.0),
        ("pearson", [1.0, 2.0, 3.0], [2.0, 4.0, 6.5], 0.99794872),
        ("pearson", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),  # not defined for a constant
        ("spearman", [1.0, 2.0, 9.0], [1.0, 3.0, 2.0], 0.5),
    ],
)
def test_metric_equals_the_value_computed_by_hand(metric, predictions, references, value):
    assert metrics.compute(metric, predictions, references) == pytest.approx(value, abs=1e-6)


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(KeyError, match="accuracy, f1, matthews, pearson, spearman"):
        metrics.compute("bleu", [1], [1])


def test_metrics_import_neither_evaluate_nor_datasets_nor_torch():
    code = (
        "import sys; from sdsbench.evaluation import metrics\n"
        "values = [metrics.compute(name, [0, 1, 1], [0, 1, 0]) for name in metrics.METRICS]\n"
        "sys.exit(bool({'evaluate', 'datasets', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("share", "count", "low", "high"), [(0.0, 4, 0.0, 0.4899), (1.0, 4, 0.5101, 1.0), (0.5, 10, 0.2366, 0.7634)]
)
def test_wilson_interval(share: float, count: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)
