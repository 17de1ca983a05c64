"""Evidence that could not have decided a claim is inadmissible, and the verdict names the numbers against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdsbench.core.record import Score
from sdsbench.results.claims.verdict_texts import markdown
from tests.results.claims.tools import make_claim, verdict_on, write_runs
from tests.results.tables.fixtures import make_record, make_samples, tuned, write_run


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_inadmissible(tmp_path: Path, seeds: int) -> None:
    write_runs(tmp_path, "lora", [0.2, 0.21][:seeds])
    write_runs(tmp_path, "sds_lora", [0.9, 0.91, 0.92])
    result = verdict_on(tmp_path, make_claim())
    assert result.answer == "inadmissible" and "3 are needed" in result.findings[0].note


def test_runs_of_two_code_versions_are_not_averaged(tmp_path: Path) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52])
    write_runs(tmp_path, "sds_lora", [0.6, 0.61])
    write_run(tmp_path, make_record("sds_lora", 2, {"gsm8k": 0.6}, code_hash="other"))
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == "inadmissible" and "code.core" in finding.note


def test_unequal_settings_are_inadmissible_and_shared_settings_are_contexts(tmp_path: Path) -> None:
    steps = {n: {"config": {"train": {"lr": 1e-3, "max_steps": n}}} for n in (10, 80)}
    write_runs(tmp_path / "one", "lora", [0.50, 0.51, 0.52], **steps[10])
    write_runs(tmp_path / "one", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    finding = verdict_on(tmp_path / "one", make_claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "unequal settings: train.max_steps: 10 in" in finding.note and "; 80 in" in finding.note
    write_runs(tmp_path / "two", "lora", [0.50, 0.51, 0.52], **steps[10])
    write_runs(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[10])
    write_runs(tmp_path / "two", "lora", [0.70, 0.71, 0.72], **steps[80])
    write_runs(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    findings = verdict_on(tmp_path / "two", make_claim()).findings
    assert sorted((f.answer, f.context.split(", ")[-1]) for f in findings) == [
        ("contradicted", "train.max_steps 80"),
        ("reproduced", "train.max_steps 10"),
    ]


@pytest.mark.parametrize("chosen, answer", [(1e-3, "reproduced"), (1e-2, "inadmissible"), (1e-4, "inadmissible")])
def test_best_rate_at_the_end_of_its_grid_is_inadmissible(tmp_path: Path, chosen: float, answer: str) -> None:
    grid = [1e-4, 1e-3, 1e-2]
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52], tuning=tuned(1e-3, grid))
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62], lr=chosen, tuning=tuned(chosen, grid))
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == answer
    assert ("is an end of the grid (0.0001 to 0.01)" in finding.note) == (answer == "inadmissible")


def test_untuned_runs_are_inadmissible_for_a_claim_about_tuned_methods(tmp_path: Path) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52])
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert verdict_on(tmp_path, make_claim()).answer == "reproduced"
    result = verdict_on(tmp_path, make_claim(tuned=True))
    assert result.answer == "inadmissible" and "not tuned, and the claim is about tuned" in result.findings[0].note


def classifier_answers(predictions: list[float], labels: list[float]) -> list[dict[str, object]]:
    return [
        {"index": i, "id": f"q{i}", "target": t, "response": p, "scores": {"accuracy": float(t == p)}}
        for i, (t, p) in enumerate(zip(labels, predictions, strict=True))
    ]


def test_constant_predictors_are_inadmissible(tmp_path: Path) -> None:
    """On MRPC both sides predict one class in every run; on RTE one side does."""
    labels = [1.0] * 14 + [0.0] * 6
    for task, learning in (("glue/mrpc", False), ("glue/rte", True)):
        for method in ("lora", "sds_lora"):
            for seed in range(3):
                learns = learning and method == "lora"
                answers = classifier_answers(
                    [*labels[: 19 - seed], *[1.0] * (1 + seed)] if learns else [1.0] * 20, labels
                )
                value = sum(answer["scores"]["accuracy"] for answer in answers) / 20  # type: ignore[index,misc]
                record = make_record(method, seed, {task: value}, task=task, scorer="accuracy", n=20, family="encoder")
                write_run(tmp_path, record, {task: answers})
    result = verdict_on(tmp_path, make_claim())
    assert result.answer == "inadmissible" and {f.answer for f in result.findings} == {"inadmissible"}
    assert all("did not learn (one prediction for every row)" in f.note for f in result.findings)
    assert "inadmissible (2 inadmissible)" in markdown([result])


def test_score_of_the_untrained_model_is_inadmissible(tmp_path: Path) -> None:
    for method, values in (("lora", [0.30, 0.31, 0.32]), ("sds_lora", [0.1, 0.11, 0.12])):
        for seed, value in enumerate(values):
            record = make_record(method, seed, {"gsm8k": value})
            record.scores.append(
                Score(evaluation="gsm8k", version=1, scorer="flexible", stage="untrained", value=0.11, n=200)
            )
            write_run(tmp_path, record)
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "ours: 2 of 3 runs did not learn (not above its floor (untrained model, 11.00))" in finding.note


def test_score_that_depends_on_truncated_answers_is_inadmissible(tmp_path: Path) -> None:
    """More of LoRA's answers are truncated than the methods differ by; where few are, the answer is unchanged."""
    rng = np.random.default_rng(0)
    for folder, cut in (("many", 40), ("few", 1)):
        for method, skill in (("lora", 0.3), ("sds_lora", 0.6)):
            for seed in range(3):
                right = rng.random(100) < skill
                answers = make_samples(right)
                wrong = [answer for answer in answers if not answer["scores"]["flexible"]]
                for number, answer in enumerate(wrong):
                    answer["truncated"] = method == "lora" and number < cut
                for answer in answers:
                    answer.setdefault("truncated", False)
                record = make_record(method, seed, {"gsm8k": float(right.mean())}, n=100)
                write_run(tmp_path / folder, record, {"gsm8k": answers})
    finding = verdict_on(tmp_path / "many", make_claim()).findings[0]
    assert finding.answer == "inadmissible" and "hangs on truncated outputs: 0.0 and 40.0 points" in finding.note
    assert verdict_on(tmp_path / "few", make_claim()).answer == "reproduced"
