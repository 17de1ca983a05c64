"""Stored answers are graded from the gold answer alone: what the contract of tasks and the reader of bundles say."""

from __future__ import annotations

import pytest

from sdsbench.checks import task as contract
from sdsbench.results import grading
from sdsbench.results.bundles import consistency
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.tasks.gsm8k import GSM8K

WORDS = ["model=micro", "data.source=embedded", "method=lora", "task=gsm8k", "eval.limit=2"]
ADVICE = "a scorer that reads other columns than answer and solution needs Generation.row_of"


def test_scorers_that_need_other_columns_than_the_gold_answer_fail_the_contract(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose_run(WORDS)
    assert contract.stored_answers(config).holds is True
    monkeypatch.setattr(grading, "row", lambda target: {"reversed": target})
    finding = contract.stored_answers(config)
    assert finding.holds is False and "KeyError('answer') from the gold answer" in finding.text
    assert finding.text.endswith(ADVICE)


def test_other_verdict_from_the_gold_answer_alone_fails_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "row", lambda target: {"answer": "#### 123456"})
    finding = contract.stored_answers(compose_run(WORDS))
    assert finding.holds is False and "from the gold answer" in finding.text and "from the row" in finding.text


def test_answers_that_cannot_be_graded_again_are_no_changed_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (evaluation,) = GSM8K(compose_run(WORDS).task).evaluations()
    monkeypatch.setattr(grading, "row", lambda target: {})
    answers = [{"index": i, "target": "72", "response": "#### 72", "scores": {"flexible": 1.0}} for i in range(3)]
    problems = list(consistency._graded(evaluation, "gsm8k (trained)", answers))
    (reason,) = [problem for problem in problems if "flexible" in problem]
    assert "cannot be graded again by flexible (KeyError: 'answer')" in reason and "Generation.row_of" in reason


def test_scorer_that_returns_numbers_is_held_to_the_contract_of_graders() -> None:
    (evaluation,) = GSM8K(compose_run(WORDS).task).evaluations()
    rows = [{"answer": f"#### {i}"} for i in range(3)]
    graded = evaluation.scorers["flexible"]
    assert list(contract._grader_problems(evaluation, lambda row, text: float(graded(row, text)), rows)) == []
    for always, problem in ((1.0, "accepts every answer"), (0.5, "accepts no gold answer in any of the common forms")):
        assert list(contract._grader_problems(evaluation, lambda *_, always=always: always, rows)) == [problem]
