"""The recommendation of a comparison, made from hand-made records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdsbench.core.record import Record, Score, Seconds
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.definition import Row
from sdsbench.results.tables.reference_comparison import compare
from sdsbench.results.tables.runs import load
from sdsbench.runs.aggregate import means_of
from sdsbench.studies.comparison import comparison
from sdsbench.studies.comparison.budget import EFFORTS
from sdsbench.studies.comparison.recommendation import Candidate, Recommendation, recommend
from tests.results.tables.fixtures import built, make_record, make_samples, write_run

N = 200


def recommend_from(root: Path, scores: dict[str, list[int]], seconds: dict[str, float]) -> Recommendation:
    """The recommendation from runs with these numbers of correct answers out of 200, one number per seed."""
    for method, counts in scores.items():
        for seed, right in enumerate(counts):
            record = make_record(
                method,
                seed,
                {"gsm8k": right / N},
                n=N,
                seconds=Seconds(load=1.0, init=0.1, train=seconds[method], eval=4.0),
                config={"protocol": {"lr": 1e-3}},
            )
            write_run(root, record, {"gsm8k": make_samples([i < right for i in range(N)])})
    (found,) = recommend(built("grid", root), "lora")
    return found


def test_cheapest_of_indistinguishable_methods_is_recommended(tmp_path: Path) -> None:
    found = recommend_from(
        tmp_path, {"lora": [100, 104, 98, 101], "dora": [103, 99, 105, 101]}, {"lora": 20.0, "dora": 24.0}
    )
    assert (
        "LoRA, r 8 and DoRA, r 8 cannot be told apart (DoRA, r 8 - LoRA, r 8: +0.6 [-1.6, 2.8]). "
        "LoRA, r 8 trains 1.2x faster than DoRA, r 8." in found.sentence
    )
    assert found.sentence.endswith("Take LoRA, r 8 at train.lr=0.001.")
    assert found.chosen is not None and found.chosen.best_run.record.seed == 1


def test_better_method_is_recommended_with_difference_and_interval(tmp_path: Path) -> None:
    found = recommend_from(
        tmp_path, {"lora": [60, 64, 58, 61], "dora": [123, 119, 125, 121]}, {"lora": 20.0, "dora": 24.0}
    )
    assert "DoRA, r 8 is best, 61.0 [" in found.sentence
    assert "Against LoRA, r 8: +30.6 [" in found.sentence
    assert found.sentence.endswith("Take DoRA, r 8 at train.lr=0.001.")


def test_better_reference_is_recommended_without_a_difference_to_itself(tmp_path: Path) -> None:
    found = recommend_from(tmp_path, {"lora": [123, 119, 125], "dora": [60, 64, 58]}, {"lora": 20.0, "dora": 24.0})
    assert "Against" not in found.sentence and found.sentence.endswith("Take LoRA, r 8 at train.lr=0.001.")


def test_two_seeds_give_no_recommendation(tmp_path: Path) -> None:
    found = recommend_from(tmp_path, {"lora": [60, 64], "dora": [123, 119]}, {"lora": 20.0, "dora": 24.0})
    assert found.chosen is None
    assert "nothing can be said yet: fewer than 3 seeds of LoRA, r 8 and DoRA, r 8" in found.sentence


def test_equal_answers_give_no_recommendation(tmp_path: Path) -> None:
    found = recommend_from(tmp_path, {"lora": [90, 90, 90], "dora": [90, 90, 90]}, {"lora": 20.0, "dora": 24.0})
    assert found.chosen is None and "no test tells runs apart that score the same" in found.sentence


def test_methods_that_learned_nothing_are_not_recommended(tmp_path: Path) -> None:
    found = recommend_from(tmp_path, {"lora": [0, 0, 0], "dora": [0, 0, 0]}, {"lora": 20.0, "dora": 24.0})
    assert found.chosen is None
    assert "3 of 3 runs of LoRA, r 8 learned nothing. 3 of 3 runs of DoRA, r 8 learned nothing." in found.sentence


def test_runs_that_learned_nothing_or_did_not_finish_are_counted(tmp_path: Path) -> None:
    write_run(tmp_path, make_record("dora", 9, status="oom", config={"protocol": {"lr": 1e-3}}))
    found = recommend_from(
        tmp_path, {"lora": [60, 64, 58, 61], "dora": [123, 0, 125, 121]}, {"lora": 20.0, "dora": 24.0}
    )
    assert "1 of 4 runs of DoRA, r 8 learned nothing. Not finished of DoRA, r 8: 1 oom." in found.sentence
    assert "runs of LoRA" not in found.sentence and "of LoRA, r 8:" not in found.sentence.partition("Not finished")[2]


def test_forgetting_is_reported_last_and_decides_no_recommendation(tmp_path: Path) -> None:
    """DoRA is better on the task, but forgets more of another set, whose name comes first in the table."""
    for method, right, kept in (("lora", 0.3, 0.6), ("dora", 0.6, 0.5)):
        for seed in range(3):
            record = make_record(method, seed, {"gsm8k": right + seed / 100}, config={"protocol": {"lr": 1e-3}})
            record.scores += [
                Score(evaluation="arc_easy", version=1, scorer="acc", stage=stage, value=value, n=50, headline=True,
                      retention=True)
                for stage, value in (("untrained", 0.7), ("trained", kept + seed / 100))
            ]  # fmt: skip
            write_run(tmp_path, record)
    table = built("grid", tmp_path)
    tested = {found.column.measure: found for found in compare(table, "lora").differences}
    assert tested["forgotten.arc_easy"].contrast and tested["forgotten.arc_easy"].adjusted < 0.05, (
        "tested like other scores"
    )
    task, forgetting = recommend(table, "lora")
    assert task.chosen is not None and task.sentence.endswith("Take DoRA, r 8 at train.lr=0.001.")
    assert forgetting.chosen is None
    assert "forgotten: LoRA, r 8 9.0 [6.5, 11.5], DoRA, r 8 19.0 [" in forgetting.sentence


def test_task_of_several_sets_is_decided_by_their_mean(tmp_path: Path) -> None:
    sets = means_of("commonsense")["commonsense"]
    for method, right in (("lora", 0.3), ("dora", 0.6)):
        for seed in range(3):
            scores = dict.fromkeys(sets, right + seed / 100)
            write_run(tmp_path, make_record(method, seed, scores, task="commonsense"))
    (found,) = recommend(built("grid", tmp_path), "lora")
    assert "mean of commonsense (embedded): DoRA, r 8 is best, 61.0 [" in found.sentence


def write_losses(root: Path, method: str, losses: Sequence[float]) -> Record:
    """Write one run per loss, with the loss as its score, and return the last record."""
    for seed, loss in enumerate(losses):
        record = make_record(method, seed, {"pairs": loss}, config={"protocol": {"lr": 1e-3}})
        as_loss = {"scorer": "loss", "better": "lower", "unit": "number", "stage": "validation"}
        record.scores += [score.model_copy(update=as_loss) for score in record.scores]
        record.scores = [score.model_copy(update={**as_loss, "stage": score.stage}) for score in record.scores]
        write_run(root, record)
    return record


def test_losses_are_shown_with_their_digits_and_not_in_points(tmp_path: Path) -> None:
    first = write_losses(tmp_path, "lora", (1.523, 1.541, 1.532))
    write_losses(tmp_path, "dora", (1.312, 1.331, 1.322))
    (found,) = recommend(built("grid", tmp_path), "lora")
    assert "DoRA, r 8 is best, 1.32 [" in found.sentence and "Against LoRA, r 8: -0.21 [" in found.sentence
    assert "1.53" in first._repr_html_() and "153" not in first._repr_html_()
    sentence = comparison._power_sentence(EFFORTS[0], first, 60)
    assert sentence == "which differences of loss it finds is known once seeds have run"


def test_best_run_by_loss_has_the_lowest_loss(tmp_path: Path) -> None:
    write_losses(tmp_path, "lora", (2.0, 1.5, 1.8))
    runs, _ = load(tmp_path)
    cell = TableCell("lora", "pairs", "value", by_seed={0: 2.0, 1: 1.5, 2: 1.8}, runs=tuple(runs))
    assert Candidate(Row("lora", "LoRA", {}), cell, None).best_run.record.seed == 1
