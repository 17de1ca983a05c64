"""Every grader gives the verdicts of the program that it is named after on the rows of authors/, also under load.

authors/README.md states the program, commit and settings that made the verdicts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdsbench.tasks import symbolic
from sdsbench.tasks.commonsense import BENCHMARKS
from sdsbench.tasks.graders import commonsense_answer as commonsense
from sdsbench.tasks.graders import gsm8k_answer as gsm8k
from sdsbench.tasks.graders import math_answer as math
from tests.tasks.busy import busy_machine

AUTHORS = Path(__file__).parent / "authors"
GSM8K = {
    "lora_sb_gsm8k": "paper",
    "metamath_gsm8k": "metamath",
    "lm_eval_strict": "strict",
    "lm_eval_flexible": "flexible",
}
MATH = {
    "lora_sb_math": "paper",
    "lora_sb_math_no_antlr": "paper_no_antlr",
    "metamath_math": "metamath",
    "lm_eval_minerva": "minerva",
    "math_verify": "math_verify",
    "math_verify_marked": "math_verify_marked",
}
LABELS = {folder.split("/")[1]: labels for folder, labels in BENCHMARKS.values()}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (AUTHORS / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("theirs", GSM8K)
def test_gsm8k_verdicts_equal_the_programs(theirs: str) -> None:
    grader = gsm8k.GRADERS[GSM8K[theirs]]
    found = rows("gsm8k")
    assert len(found) == 864
    for row in found:
        assert grader(row["gold"].replace(",", ""), row["answer_text"]) is row["verdicts"][theirs], row


def differing_rows(theirs: str, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with another verdict than the program's; its null (no answer was found) counts as wrong."""
    grader = math.GRADERS[MATH[theirs]]
    return [row for row in some if grader(row["gold"], row["answer_text"]) is not bool(row["verdicts"][theirs])]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("theirs", MATH)
def test_math_verdicts_equal_the_programs(theirs: str) -> None:
    found = rows("math")
    assert len(found) == 1157
    assert differing_rows(theirs, found) == []


@pytest.mark.parametrize(("theirs", "ours"), [("llm_adapters", "paper"), ("lora_sb", "lora_sb")])
def test_commonsense_verdicts_equal_the_programs(theirs: str, ours: str) -> None:
    found = rows("commonsense")
    assert len(found) == 400
    for row in found:
        verdict = commonsense.GRADERS[ours](LABELS[row["dataset"]], row["gold"], row["answer_text"])
        assert verdict is row["verdicts"][theirs], row


def text_with_answer(gold: str) -> str:
    return f"So.\nFinal Answer: The final answer is ${gold}$. I hope it is correct.\nThe answer is: {gold}"


@pytest.mark.timeout(900)
def test_math_verdicts_on_a_busy_machine() -> None:
    """While twelve processes compute, verdicts that need a library and those of answers equal to the gold hold."""
    found = rows("math")
    some = found[::40]
    golds = sorted({row["gold"] for row in found})[::20]
    symbolic.equal("lora_sb", "1", "2")  # starts the helper process, so that only grading follows
    with busy_machine():
        for theirs in MATH:
            assert differing_rows(theirs, some) == [], theirs
        for gold in golds:
            for name in ("paper", "paper_no_antlr", "fixed", "metamath", "math_verify_marked"):
                assert math.GRADERS[name](gold, text_with_answer(gold)) is True, (name, gold)


@pytest.mark.slow  # 2 to 3 minutes a program: it keeps the machine busy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("theirs", MATH)
def test_all_math_verdicts_on_a_busy_machine(theirs: str) -> None:
    symbolic.equal("lora_sb", "1", "2")
    with busy_machine():
        assert differing_rows(theirs, rows("math")) == []
