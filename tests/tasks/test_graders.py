"""Graders: goldens of hand-picked hard cases and of real generations, and no input that raises or takes long."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdsbench.tasks import commonsense, gsm8k, math, symbolic
from sdsbench.tasks.answers import last_boxed
from sdsbench.tasks.math_normal import normal_form

GOLDEN = Path(__file__).parent / "golden"
GSM8K = {"paper": gsm8k.paper, "strict": gsm8k.strict, "flexible": gsm8k.flexible}
MATH = {"paper": math.paper, "fixed": math.fixed, "math_verify": math.math_verify}
ROWS: Mapping[str, Callable[[str], dict[str, str]]] = {
    "gsm8k": lambda gold: {"answer": f"#### {gold}"},
    "math": lambda gold: {"solution": f"\\boxed{{{gold}}}"},
}
ALL = [("gsm8k", name, grader) for name, grader in GSM8K.items()] + [
    ("math", name, grader) for name, grader in MATH.items()
]


def cases(file: str) -> list[dict]:
    return [json.loads(line) for line in (GOLDEN / file).read_text().splitlines()]


@pytest.mark.parametrize("case", cases("gsm8k_hard.jsonl"), ids=lambda case: case["why"])
def test_gsm8k_hard_cases(case):
    row = ROWS["gsm8k"](case["gold"])
    assert {name: grader(row, case["text"]) for name, grader in GSM8K.items()} == {name: case[name] for name in GSM8K}


@pytest.mark.parametrize("case", cases("math_hard.jsonl"), ids=lambda case: case["why"])
def test_math_hard_cases(case):
    row, text = ROWS["math"](case["gold"]), f"Some steps.\nThe answer is: {case['answer']}"
    assert {name: grader(row, text) for name, grader in MATH.items()} == {name: case[name] for name in MATH}


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_real_generations_keep_their_verdicts(task):
    graders = {"gsm8k": GSM8K, "math": MATH}[task]
    found = cases(f"{task}_generations.jsonl")
    assert len(found) >= 40
    for case in found:
        row = ROWS[task](case["gold"])
        verdicts = {name: grader(row, case["text"]) for name, grader in graders.items()}
        assert verdicts == {name: case[name] for name in graders}, case["text"]


def test_the_last_of_several_answers_counts_for_math():
    row = ROWS["math"]("7")
    assert math.fixed(row, "The answer is: 6\nThe answer is: 7") and not math.fixed(
        row, "The answer is: 7\nThe answer is: 6"
    )
    assert not math.paper(row, "The answer is 7"), "without its colon the mark is none, as in the papers"


def test_an_answer_ends_with_its_sentence():
    assert math.fixed(ROWS["math"]("7"), "The answer is: 7.\n\nThen 9 more.")


@pytest.mark.parametrize(("task", "name", "grader"), ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_runaway_text_is_graded_within_its_limits(task, name, grader):
    """A grader without a limit works on some of these for hours: the test's own time-out ends it."""
    row = ROWS[task]("7")
    for text in (
        "The answer is: " * 20_000,
        "The answer is: " + "9" * 100_000,
        "The answer is: " + "1/" * 50_000,
        "The answer is: " + "(" * 50_000 + "\\frac" * 10_000,
        "#### " + "," * 100_000 + "7",
        "The answer is: 9^{9^{9^{9^{9}}}}",
        "The answer is: (x+1)^{4000} - \\sin(x)^{400}",
        "\\boxed{" * 10_000,
        "\udcff\x00 The answer is: \ud800",
    ):
        assert grader(row, text) in (True, False)


QUIET_CHECKS = [HealthCheck.too_slow, HealthCheck.differing_executors]  # pytest runs one function for all graders
TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["The answer is: ", "\\frac", "\\sqrt", "{", "}", "/", "1", "x", "\\text{ ", "#### ", ",", ".", "^", "="]
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize(("task", "name", "grader"), ALL, ids=lambda value: value if isinstance(value, str) else "")
@settings(max_examples=60, derandomize=True, suppress_health_check=QUIET_CHECKS)
@given(text=TEXT)
def test_no_text_raises(task, name, grader, text):
    for gold in ("7", "\\frac{1}{2}"):
        if task == "math" or gold == "7":
            assert grader(ROWS[task](gold), f"The answer is: {text}") in (True, False)


def test_symbolic_equality_works_in_threads_and_after_its_helper_was_ended():
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(symbolic.equal("sympy", "2\\sqrt{3}", "\\sqrt{12}")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
    helper = symbolic._helper
    assert helper is not None
    helper._process.kill()
    helper._process.wait()
    assert symbolic.equal("sympy", "4", "2+2") is False, "the question that meets the end of the helper is not answered"
    assert symbolic.equal("sympy", "4", "2+2") is True


def test_last_boxed():
    assert last_boxed(r"first \boxed{1}, then $\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert last_boxed(r"$\boxed 5$") == "5"
    assert last_boxed(r"\boxed{1 + {2}") is None
    assert last_boxed("none") is None


def test_normal_form_raises_where_the_published_one_does():
    assert normal_form("3/4") == normal_form("\\frac34") == "\\frac{3}{4}"
    for answer in ("x/2", "\\frac", "\\sqrt", "1 \\text{ a} 2 \\text{ b}"):
        with pytest.raises((ValueError, IndexError)):
            normal_form(answer)


@pytest.mark.parametrize(
    ("benchmark", "answer", "text", "correct"),
    [
        ("boolq", "false", "the correct answer is false", True),
        ("boolq", "false", "The correct answer is FALSE", False),  # labels are read letter for letter
        ("boolq", "false", "true or false? false", False),  # the first label counts
        ("hellaswag", "ending4", "the correct answer is ending4", True),
        ("openbookqa", "answer1", "answer10", True),  # the papers' pattern reads answer1
        ("arc_easy", "answer5", "the correct answer is answer5", True),
        ("winogrande", "option2", "", False),
        ("piqa", "solution1", "solution 1", False),
    ],
)
def test_commonsense_paper_grader(benchmark, answer, text, correct):
    assert commonsense.paper(benchmark, {"answer": answer}, text) is correct


@pytest.mark.parametrize("case", cases("commonsense_generations.jsonl"), ids=lambda c: f"{c['benchmark']}-{c['row']}")
def test_commonsense_verdicts_on_real_generations(case):
    assert commonsense.paper(case["benchmark"], {"answer": case["answer"]}, case["text"]) is case["paper"]
