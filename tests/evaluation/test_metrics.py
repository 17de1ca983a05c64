"""Metrics of labels: values worked out by hand, and the module as `evaluate` loads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
        ("pearson", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),  # not defined: a constant knows nothing
        ("spearman", [1.0, 2.0, 9.0], [1.0, 3.0, 2.0], 0.5),
    ],
)
def test_values(metric, predictions, references, value):
    assert metrics.compute(metric, predictions, references) == pytest.approx(value, abs=1e-6)


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(KeyError, match="accuracy, f1, matthews, pearson, spearman"):
        metrics.compute("bleu", [1], [1])


def test_the_module_loads_through_evaluate_without_a_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import evaluate

    module = Path(metrics.__file__).with_name("labelled_metrics.py")
    loaded = evaluate.load(str(module), "matthews", cache_dir=str(tmp_path))
    assert loaded.compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1])["matthews"] == pytest.approx(2 / 12**0.5)


def test_evaluate_is_not_imported_before_it_is_needed():
    code = "import sys, sdsbench.evaluation.metrics, sdsbench.tasks.glue; sys.exit('evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
