"""Best and last epoch side by side: evaluated after every epoch, the best kept with its samples."""

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


def test_best_epoch_is_the_best_and_its_samples_are_kept(tmp_path: Path) -> None:
    record = execute(compose_run([*FAST, "eval.each_epoch=true", f"output_root={tmp_path}"]), QUIET)
    scores = {(s.stage, s.scorer): s.value for s in record.scores}
    headline = next(s.scorer for s in record.scores if s.headline)
    assert scores["best_epoch", headline] >= scores["trained", headline]
    assert 1 <= record.facts["best_epoch.vtab/dtd"] <= 3
    kept = samples.read(samples.path_of(tmp_path / record.run_id, "vtab/dtd", "best_epoch"))
    assert sum(row["scores"][headline] for row in kept) / len(kept) == scores["best_epoch", headline]

    plain = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert {s.stage for s in plain.scores} == {"trained"}
    assert plain.losses == record.losses, "evaluating between epochs changes nothing"


def test_the_best_epoch_need_not_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are dealt: the second epoch is the best, the third equals it.

    With a constant rate a run of two epochs ends where the longer one stood after its second epoch, so its answers are
    those that must have been kept.
    """
    words = [*FAST, "train.schedule=constant", "train.warmup_ratio=0", f"output_root={tmp_path}"]

    def answers(stage: str, dealt: list[float], *extra: str) -> tuple[Record, list[dict[str, Any]]]:
        with monkeypatch.context() as patch:
            patch.setattr(metrics, "compute", lambda *_: dealt.pop(0))
            record = execute(compose_run([*words, *extra]), QUIET)
        assert dealt == [], "one score for each evaluation"
        return record, samples.read(samples.path_of(tmp_path / record.run_id, "vtab/dtd", stage))

    record, kept = answers("best_epoch", [0.2, 0.9, 0.9, 0.4], "eval.each_epoch=true")
    assert {s.stage: s.value for s in record.scores} == {"best_epoch": 0.9, "trained": 0.4}
    assert record.facts["best_epoch.vtab/dtd"] == 2, "of equal epochs the first"
    _, second = answers("trained", [0.5], "train.epochs=2")
    _, third = answers("trained", [0.5])
    assert kept == second != third


def test_generated_and_ranked_answers_are_two_evaluations_and_overwrite_nothing(tmp_path: Path) -> None:
    """task.scorers=[paper,likelihood], after every epoch and at the end: names, scores and answers of their own."""
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


def test_two_evaluations_of_one_name_are_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and answers are kept under the name, so that one would overwrite the other."""
    one = GSM8K.evaluations
    monkeypatch.setattr(GSM8K, "evaluations", lambda task: [*one(task), *one(task)])
    with pytest.raises(ValueError, match="two evaluations share a name: gsm8k, gsm8k"):
        load_run(compose_run(["model=micro", "task=gsm8k", "data.source=embedded"]))


@pytest.mark.parametrize(("evaluation", "stage"), [("a__b", "trained"), ("a.b", "trained"), ("a", "best.epoch")])
def test_no_two_names_share_a_file_of_answers(evaluation: str, stage: str) -> None:
    with pytest.raises(ValueError, match="names without"):
        samples.path_of(Path(), evaluation, stage)


def test_an_interrupted_evaluation_between_epochs_loses_no_step(tmp_path: Path) -> None:
    """The state after the epoch is saved; the next attempt makes up for the scores and trains on."""

    class StopInSecondEpoch(StopRequest):
        looks = 0

        def raise_if_received(self, saved: str) -> None:
            self.looks += saved.startswith("evaluation")
            if self.looks == 3:  # two batches of 32 rows an epoch
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
