"""Tuning runs are scored on rows held back from training, and their scores are never labelled as test scores."""

from __future__ import annotations

from pathlib import Path

from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.tools import QUIET

FAST = [
    "model=micro", "method=lora", "data.source=embedded", "data.train_limit=32", "train.max_steps=2", "eval.limit=4",
    "eval.untrained=false", "task.max_new_tokens=4", "threads=1", "train.batch_size=2",
]  # fmt: skip


def test_scores_name_their_split(tmp_path: Path) -> None:
    tuning = execute(compose_run([*FAST, "eval.split=validation", f"output_root={tmp_path}"]), QUIET)
    final = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert {score.stage for score in tuning.scores} == {"validation"}
    assert {score.stage for score in final.scores} == {"trained"}
    assert tuning.provenance is not None and final.provenance is not None
    assert [data.split for data in tuning.provenance.data] == ["train", "validation"]
    assert tuning.provenance.data[1].fingerprint != final.provenance.data[1].fingerprint


def test_tuning_run_records_its_validation_loss(tmp_path: Path) -> None:
    """The loss falls with more training; a run scored on test data has none."""
    tuning = execute(compose_run([*FAST, "eval.split=validation", f"output_root={tmp_path}"]), QUIET)
    assert tuning.losses is not None and tuning.losses.validation is not None
    assert 0 < tuning.losses.validation < 2 * tuning.losses.first
    longer = [*FAST, "train.max_steps=12", "train.lr=1e-2", "eval.split=validation", f"output_root={tmp_path}"]
    better = execute(compose_run(longer), QUIET)
    assert better.losses is not None and better.losses.validation is not None
    assert better.losses.validation < tuning.losses.validation
    final = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert final.losses is not None and final.losses.validation is None
