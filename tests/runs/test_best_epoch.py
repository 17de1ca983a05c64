"""eval.each_epoch: the best epoch's scores and answers are kept beside those of the last epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdsbench.core import samples, step_log
from sdsbench.core.errors import Interrupted
from sdsbench.core.record import Record
from sdsbench.evaluation import metrics
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.runs.run_data import load_run
from sdsbench.tasks.gsm8k import GSM8K
from sdsbench.training.signals import StopRequest
from tests.tools import QUIET

FAST = [
    "model=vit_micro", "task=vtab/dtd", "method=lora", "data.source=embedded", "data.train_limit=40",
    "train.batch_size=8", "train.max_steps=null", "train.epochs=3", "train.lr=5e-3", "eval.limit=60",
    "eval.untrained=false", "threads=1",
]  # fmt: skip


def test_best_epoch_scores_at_least_the_last_and_its_answers_are_kept(tmp_path: Path) -> None:
    record = execute(compose_run([*FAST, "eval.each_epoch=true", f"output_root={tmp_path}"]), QUIET)
    scores = {(s.stage, s.scorer): s.value for s in record.scores}
    headline = next(s.scorer for s in record.scores if s.headline)
    assert scores["best_epoch", headline] >= scores["trained", headline]
    assert 1 <= record.facts["best_epoch.vtab/dtd"] <= 3
    kept = samples.read(samples.path_of(tmp_path / record.run_id, "vtab/dtd", "best_epoch"))
    assert sum(row["scores"][headline] for row in kept) / len(kept) == scores["best_epoch", headline]

    plain = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert {s.stage for s in plain.scores} == {"trained"}
    assert plain.losses == record.losses, "evaluating between epochs does not change training"


def test_answers_of_the_best_epoch_are_those_after_that_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given scores make the second epoch the best; the third epoch has the same score.

    At a constant rate, a run of two epochs ends with the weights that the longer run has after its second epoch, so
    both must give the same answers.
    """
    words = [*FAST, "train.schedule=constant", "train.warmup_ratio=0", f"output_root={tmp_path}"]

    def answers(stage: str, given: list[float], *extra: str) -> tuple[Record, list[dict[str, Any]]]:
        with monkeypatch.context() as patch:
            patch.setattr(metrics, "compute", lambda *_: given.pop(0))
            record = execute(compose_run([*words, *extra]), QUIET)
        assert given == [], "one score for each evaluation"
        return record, samples.read(samples.path_of(tmp_path / record.run_id, "vtab/dtd", stage))

    record, kept = answers("best_epoch", [0.2, 0.9, 0.9, 0.4], "eval.each_epoch=true")
    assert {s.stage: s.value for s in record.scores} == {"best_epoch": 0.9, "trained": 0.4}
    assert record.facts["best_epoch.vtab/dtd"] == 2, "the first of two equal epochs"
    _, second = answers("trained", [0.5], "train.epochs=2")
    _, third = answers("trained", [0.5])
    assert kept == second != third


def test_generated_and_likelihood_answers_are_kept_as_two_evaluations(tmp_path: Path) -> None:
    """With task.scorers=[paper,likelihood], each has its own name, scores and answers, per epoch and at the end."""
    words = [
        "model=micro", "task=commonsense/openbookqa", "task.scorers=[paper,likelihood]", "method=lora",
        "data.source=embedded", "data.train_limit=8", "train.batch_size=4", "train.max_steps=null", "train.epochs=2",
        "eval.each_epoch=true", "eval.limit=3", "eval.untrained=false", "task.max_new_tokens=4", "threads=1",
    ]  # fmt: skip
    record = execute(compose_run([*words, f"output_root={tmp_path}"]), QUIET)
    names = {"openbookqa": {"paper", "lora_sb"}, "openbookqa_likelihood": {"likelihood"}}
    stages = ("best_epoch", "trained")
    expected = {(name, stage, scorer) for name in names for stage in stages for scorer in names[name]}
    assert {(s.evaluation, s.stage, s.scorer) for s in record.scores} == expected
    assert [s.scorer for s in record.scores if s.headline and s.stage == "trained"] == ["paper", "likelihood"]
    for name, scorers in names.items():
        for stage in stages:
            answers = samples.read(samples.path_of(tmp_path / record.run_id, name, stage))
            assert [row["scores"].keys() for row in answers] == [scorers] * 3


def test_task_with_two_evaluations_of_one_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and answers are stored under the name, so one evaluation would overwrite the other."""
    one = GSM8K.evaluations
    monkeypatch.setattr(GSM8K, "evaluations", lambda task: [*one(task), *one(task)])
    with pytest.raises(ValueError, match="two evaluations share a name: gsm8k, gsm8k"):
        load_run(compose_run(["model=micro", "task=gsm8k", "data.source=embedded"]))


@pytest.mark.parametrize(("evaluation", "stage"), [("a__b", "trained"), ("a.b", "trained"), ("a", "best.epoch")])
def test_names_that_could_share_a_file_of_answers_are_refused(evaluation: str, stage: str) -> None:
    with pytest.raises(ValueError, match="names without"):
        samples.path_of(Path(), evaluation, stage)


def test_interrupted_evaluation_between_epochs_loses_no_step(tmp_path: Path) -> None:
    """The state after the epoch is saved; the next attempt evaluates that epoch again and continues training."""

    class StopInSecondEpoch(StopRequest):
        checks = 0

        def raise_if_received(self, saved: str) -> None:
            self.checks += saved.startswith("evaluation")
            if self.checks == 3:  # an epoch has two evaluation batches of 32 rows
                raise Interrupted(saved)

    words = [*FAST, "eval.each_epoch=true", "train.checkpoint_every=1000", f"output_root={tmp_path}"]
    with pytest.raises(Interrupted):
        execute(compose_run(words), RunContext(log=lambda _: None, stop=StopInSecondEpoch()))
    (checkpoint,) = tmp_path.glob("*/checkpoint-10")
    resumed = execute(compose_run(words), QUIET)
    assert [attempt.from_step for attempt in resumed.attempts] == [0, 10] and not checkpoint.exists()
    log = step_log.read(tmp_path / resumed.run_id / "metrics.jsonl")
    epochs = [line["step"] for line in log if line["kind"] == "eval" and line["stage"] == "best_epoch"]
    assert sorted(set(epochs)) == [5, 10, 15] and len(epochs) == 3 * epochs.count(5)
    whole = execute(compose_run([*words, f"output_root={tmp_path / 'whole'}"]), QUIET)
    assert (resumed.scores, resumed.losses, resumed.facts) == (whole.scores, whole.losses, whole.facts)
