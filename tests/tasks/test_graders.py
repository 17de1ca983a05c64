"""Graders: golden verdicts on hard cases and real generations; no input raises, no time limit decides a verdict."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdsbench.tasks import commonsense, symbolic
from sdsbench.tasks.answer_extraction import last_boxed
from sdsbench.tasks.graders import commonsense_answer as labels
from sdsbench.tasks.graders import gsm8k_answer as gsm8k
from sdsbench.tasks.graders import math_answer as math
from sdsbench.tasks.graders import minerva
from sdsbench.tasks.graders.hendrycks import normal_form

GOLDEN = Path(__file__).parent / "golden"
GRADERS = {"gsm8k": gsm8k.GRADERS, "math": math.GRADERS}
ALL = [(task, name) for task, graders in GRADERS.items() for name in graders]


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short CPU limit for endless computations; answers with a verdict need far less."""
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 4.0)


def cases(file: str) -> list[dict]:
    return [json.loads(line) for line in (GOLDEN / file).read_text().splitlines()]


def verdicts(task: str, gold: str, text: str) -> dict[str, bool | None]:
    return {name: grader(gold, text) for name, grader in GRADERS[task].items()}


@pytest.mark.parametrize("case", cases("gsm8k_hard.jsonl"), ids=lambda case: case["why"])
def test_gsm8k_hard_cases(case):
    assert verdicts("gsm8k", case["gold"], case["text"]) == {name: case[name] for name in gsm8k.GRADERS}


@pytest.mark.parametrize("case", cases("math_hard.jsonl"), ids=lambda case: case["why"])
def test_math_hard_cases(case, short_limits, monkeypatch):
    if None in case.values():  # undecided at any limit, so a short one is enough
        monkeypatch.setattr(symbolic, "CPU_SECONDS", 1.0)
    text = f"Some steps.\nThe answer is: {case['answer']}"
    assert verdicts("math", case["gold"], text) == {name: case[name] for name in math.GRADERS}


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_real_generations_keep_their_verdicts(task):
    found = cases(f"{task}_generations.jsonl")
    assert len(found) >= 40
    for case in found:
        assert verdicts(task, case["gold"], case["text"]) == {name: case[name] for name in GRADERS[task]}, case["text"]


def test_last_of_several_answers_counts_for_math():
    assert math.fixed("7", "The answer is: 6\nThe answer is: 7")
    assert not math.fixed("7", "The answer is: 7\nThe answer is: 6")
    assert not math.paper("7", "The answer is 7"), "as in the papers, the answer mark needs its colon"


def test_answer_ends_with_its_sentence():
    assert math.fixed("7", "The answer is: 7.\n\nThen 9 more.")


ENDLESS = (
    "The answer is: " * 20_000,
    "The answer is: " + "9" * 100_000,
    "The answer is: " + "1/" * 50_000,
    "The answer is: " + "(" * 50_000 + "\\frac" * 10_000,
    "#### " + "," * 100_000 + "7",
    "The answer is: 9^{9^{9^{9^{9}}}}",
    "The answer is: (x+1)^{4000} - \\sin(x)^{400}",
    "\\boxed{" * 10_000,
    "\udcff\x00 The answer is: \ud800",
    "The answer is: exit()",
    "The answer is: ().__class__.__base__.__subclasses__()",
)


@pytest.mark.parametrize("text", ENDLESS, ids=lambda text: ascii(text[:40]))
def test_endless_text_gets_a_verdict_or_is_undecided(text, monkeypatch):
    """`fixed`, the grader used for ranking, accepts none of these texts as the answer."""
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 0.5)
    found = {name: GRADERS[task][name]("7", text) for task, name in ALL}
    assert set(found.values()) <= {True, False, None}
    assert found["fixed"] is not True


def test_time_limit_leaves_a_verdict_undecided_and_patience_decides_it(monkeypatch):
    gold, answer = "2\\sqrt{3}", "The answer is: \\sqrt{12}"
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 0.001)
    assert math.fixed(gold, answer) is None and math.paper(gold, answer) is None
    with symbolic.patience(20_000):
        assert math.fixed(gold, answer) is True
    assert math.fixed(gold, answer) is None, "patience applies only within its block"
    assert math.fixed(gold, f"The answer is: {gold}") is True, "identical answers need no library"
    assert math.paper("\\frac{1}{2}", "The answer is: \\dfrac12") is True, (
        "answers with the same normal form need none either"
    )


def test_list_with_an_undecided_member_is_undecided(monkeypatch):
    answers = {("\\sqrt{4}", "2"): None, ("[\\sqrt{4},1]", "[2,1]"): False, ("[\\sqrt{4},1]", "[2,3]"): False}
    monkeypatch.setattr(symbolic, "equal", lambda _, gold, predicted: answers[gold, predicted])
    assert math.paper("[\\sqrt{4},1]", "The answer is: [2,1]") is None
    assert math.paper("[\\sqrt{4},1]", "The answer is: [2,3]") is False, "another member is wrong, which decides"


def test_generated_text_is_not_executed(tmp_path):
    path = tmp_path / "written"
    for text in (f"open('{path}','w')", f"exec('open(r\"{path}\",chr(119))')", "eval('1/0')", "breakpoint()"):
        assert symbolic.equal("lora_sb_no_antlr", "7", text) is False
    assert not path.exists()


def test_environment_variables_change_no_verdict():
    """A process with another environment gives the same verdicts as this process."""
    variables = {
        "PYTHONINTMAXSTRDIGITS": "640", "PYTHONHASHSEED": "7", "SYMPY_USE_CACHE": "no", "LC_ALL": "C", "LANG": "tr_TR",
        "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "3",
    }  # fmt: skip
    digits = "1" * 700
    questions = [
        ("math", "7", f"The answer is: {digits}/{digits}1"),
        ("math", "\\{1,2,3\\}", "The answer is: \\{3,2,1\\}"),
        ("math", "x^2+2x+1", "The answer is: (x+1)^2"),
        ("gsm8k", "7", f"The answer is: {digits}"),
        ("gsm8k", "12", "The answer is: １２"),
    ]
    program = (
        "import json, sys\n"
        "from sdsbench.tasks.graders import gsm8k_answer, math_answer\n"
        "graders = {'gsm8k': gsm8k_answer.GRADERS, 'math': math_answer.GRADERS}\n"
        "questions = json.load(sys.stdin)\n"
        "found = [{n: g(gold, text) for n, g in graders[task].items()} for task, gold, text in questions]\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(questions), env=os.environ | variables, text=True,
        capture_output=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(done.stdout) == [verdicts(*question) for question in questions]


def test_helpers_environment_holds_no_variable_that_changes_answers():
    given = {
        "PATH": "/bin",
        "PYTHONPATH": "x",
        "PYTHONHASHSEED": "random",
        "SYMPY_CACHE_SIZE": "1",
        "PYTHONOPTIMIZE": "2",
    }
    kept = symbolic.environment(given)
    assert kept["PATH"] == "/bin" and kept["PYTHONPATH"].endswith(f"{os.pathsep}x") and kept["PYTHONHASHSEED"] == "0"
    assert not {"SYMPY_CACHE_SIZE", "PYTHONOPTIMIZE"} & set(kept)


TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["The answer is: ", "\\frac", "\\sqrt", "{", "}", "/", "1", "x", "\\text{ ", "#### ", ",", ".", "^", "="]
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize(("task", "name"), ALL)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.function_scoped_fixture],
)
@given(text=TEXT)
def test_graders_raise_for_no_text(task, name, short_limits, text):
    for gold in ("7", "\\frac{1}{2}"):
        if task == "math" or gold == "7":
            assert GRADERS[task][name](gold, f"The answer is: {text}") in (True, False, None)


def test_symbolic_equality_works_in_threads_and_after_its_helper_was_killed():
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(symbolic.equal("latex_difference", "2\\sqrt{3}", "\\sqrt{12}")))
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
    assert symbolic.equal("latex_difference", "4", "2+2") is True, "a new helper answers"


def test_interrupted_question_does_not_answer_the_next_one(monkeypatch):
    assert symbolic.equal("latex_difference", "4", "2+2") is True
    interrupted = symbolic._helper
    assert interrupted is not None

    class Interrupted:
        def readline(self) -> str:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(interrupted, "_replies", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            symbolic.equal("latex_difference", "4", "2+2")
    assert symbolic.equal("latex_difference", "4", "5") is False
    with pytest.raises(symbolic._Gone):  # a thread that waited for this helper must not read the reply either
        interrupted.ask("")


def test_helper_that_cannot_answer_leaves_the_verdict_undecided(monkeypatch):
    def gone(self: symbolic._Helper, request: str) -> bool:
        raise symbolic._Gone

    monkeypatch.setattr(symbolic._Helper, "ask", gone)
    assert symbolic.equal("latex_difference", "4", "2+2") is None


def test_too_long_text_is_undecided_without_a_library(monkeypatch):
    monkeypatch.setattr(symbolic, "_helper_of_this_process", lambda: pytest.fail("a library was called"))
    assert symbolic.equal("math_verify", "7", "1" * (symbolic.LONGEST + 1)) is None
    line = minerva.FIRST_WORDS + "\\text{" * 50_000 + ". " + minerva.LAST_WORDS
    assert math.minerva("7", line) is None


def test_deeply_nested_brackets_are_undecided(monkeypatch):
    monkeypatch.setattr(symbolic, "equal", lambda *_: False)
    gold, answer = ("[" * 1500 + number + "]" * 1500 for number in "12")
    assert math.paper(gold, f"The answer is: {answer}") is None


LAST = minerva.LAST_WORDS
PIECES = [minerva.FIRST_WORDS, LAST, f" {LAST}", " I hope it is correct", ".", "\n", "7", " "]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_minerva_answer_equals_that_of_its_regular_expression(text):
    found = re.search("Final Answer: The final answer is(.*?). I hope it is correct.", text + LAST)
    assert minerva.final_answer(text) == (found.group(1).strip() if found else minerva.INVALID)


def test_minerva_reads_many_first_words_in_linear_time():
    assert minerva.final_answer(minerva.FIRST_WORDS * 20_000) == minerva.INVALID


def test_last_boxed_returns_the_content_of_the_last_complete_box():
    assert last_boxed(r"first \boxed{1}, then $\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert last_boxed(r"$\boxed 5$") == "5"
    assert last_boxed(r"\boxed{1 + {2}") is None
    assert last_boxed("none") is None


def test_normal_form_raises_where_the_published_function_does():
    assert normal_form("3/4") == normal_form("\\frac34") == "\\frac{3}{4}"
    for answer in ("x/2", "\\frac", "\\sqrt", "1 \\text{ a} 2 \\text{ b}"):
        with pytest.raises((ValueError, IndexError)):
            normal_form(answer)


@pytest.mark.parametrize(
    ("benchmark", "answer", "text", "correct"),
    [
        ("boolq", "false", "the correct answer is false", True),
        ("boolq", "false", "The correct answer is FALSE", False),  # labels are compared with their case
        ("boolq", "false", "true or false? false", False),  # the first label counts
        ("hellaswag", "ending4", "the correct answer is ending4", True),
        ("openbookqa", "answer1", "answer10", True),  # the papers' pattern finds answer1
        ("arc_easy", "answer5", "the correct answer is answer5", True),
        ("winogrande", "option2", "", False),
        ("piqa", "solution1", "solution 1", False),
    ],
)
def test_commonsense_paper_grader_finds_the_first_label(benchmark, answer, text, correct):
    assert labels.paper(commonsense.BENCHMARKS[benchmark][1], answer, text) is correct


def test_lora_sb_grader_ignores_the_case_of_labels():
    offered = commonsense.BENCHMARKS["boolq"][1]
    assert labels.lora_sb(offered, "false", "The correct answer is FALSE")
    assert not labels.lora_sb(offered, "false", "TRUE or FALSE"), "the first label counts here too"


@pytest.mark.parametrize("case", cases("commonsense_generations.jsonl"), ids=lambda c: f"{c['benchmark']}-{c['row']}")
def test_commonsense_verdicts_on_real_generations(case):
    offered = commonsense.BENCHMARKS[case["benchmark"]][1]
    found = {name: grader(offered, case["answer"], case["text"]) for name, grader in labels.GRADERS.items()}
    assert found == {name: case[name] for name in labels.GRADERS}
