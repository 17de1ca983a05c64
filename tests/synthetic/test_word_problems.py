"""Embedded problems: correct solutions, disjoint splits, and the same rows on every machine."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdsbench.synthetic import metamath, word_problems, word_problems_math
from sdsbench.synthetic.word_problems_splits import PARTS, split_of
from sdsbench.synthetic.word_problems_templates import TEMPLATES

SPLITS = st.sampled_from(sorted(PARTS))
SEEDS = st.integers(0, 2**31)
ANNOTATION = re.compile(r"(\d+) ([-+*/]) (\d+) = <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+) ")


def calculate(left: str, sign: str, right: str) -> Fraction:
    a, b = Fraction(left), Fraction(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]


@settings(max_examples=40)
@given(SPLITS, SEEDS)
def test_every_annotation_is_correct_and_the_last_is_the_answer(split: str, seed: int) -> None:
    for row in word_problems.rows(split, 20, seed):
        lines = row["answer"].split("\n")
        result = None
        for line in lines[:-1]:
            match = ANNOTATION.search(line)
            assert match is not None, line
            left, sign, right, *inside, result = match.groups()
            assert inside[:3] == [left, sign, right] and inside[3] == result
            assert calculate(left, sign, right) == int(result)
        assert 2 <= len(lines) - 1 <= 4
        assert lines[-1] == f"#### {result}"
        assert row["answer"].count("<<") == len(lines) - 1


@settings(max_examples=20)
@given(SEEDS, SEEDS)
def test_splits_share_no_question_for_any_seed(one: int, other: int) -> None:
    questions = [
        {row["question"] for row in word_problems.rows(split, 150, seed)} for split in PARTS for seed in (one,)
    ]
    questions += [{row["problem"] for row in word_problems_math.math_rows(split, 100, other)} for split in PARTS]
    assert sum(map(len, questions)) == len(set().union(*questions))


def test_drawn_problem_belongs_to_its_split() -> None:
    for split in PARTS:
        rng = word_problems.generator(split, 3)
        for _ in range(200):
            problem = word_problems.draw_problem(split, rng)
            assert split_of(word_problems.canonical(problem.template, problem.values)) == split


def test_question_shows_every_number_of_the_canonical_form() -> None:
    """If the story left a number out, two canonical forms could give one question in two splits."""
    for template in TEMPLATES:
        for name in template.ranges:
            assert f"{{{name}}}" in template.story
    assert len({template.story for template in TEMPLATES}) == len({template.name for template in TEMPLATES})


@pytest.mark.parametrize(
    "make",
    [
        word_problems.rows,
        metamath.problem_rows,
        word_problems_math.math_rows,
        metamath.exercise_rows,
    ],
)
def test_rows_depend_only_on_split_seed_and_position(make) -> None:
    assert make("test", 30, 5) == make("test", 60, 5)[:30]
    assert make("test", 30, 5) != make("test", 30, 6)
    assert make("test", 30, 5) != make("train", 30, 5)


def test_rows_do_not_change_between_versions() -> None:
    """Published numbers on embedded data refer to these rows."""
    assert word_problems.rows("test", 1) == [FIRST_TEST_ROW]


FIRST_TEST_ROW = {
    "question": "George walks 3 miles in the morning and 5 miles in the evening every day. "
    "After 2 days he has walked how many miles?",
    "answer": "Every day he walks 3 + 5 = <<3+5=8>>8 miles.\n"
    "After all days he has walked 8 * 2 = <<8*2=16>>16 miles.\n#### 16",
}


def test_rows_have_the_columns_of_the_real_data_sets() -> None:
    columns = {"type", "query", "original_question", "response"}
    assert all(set(row) == {"question", "answer"} for row in word_problems.rows("train", 50))
    assert all(set(row) == columns for row in metamath.problem_rows("train", 50, 0))
    assert all(
        set(row) == {"problem", "level", "type", "solution"} for row in word_problems_math.math_rows("train", 50)
    )
    assert all(set(row) == columns for row in metamath.exercise_rows("train", 50, 0))


def test_metamath_rows_are_the_same_problems_with_metamaths_last_line() -> None:
    pairs = zip(word_problems.rows("train", 100), metamath.problem_rows("train", 100, 0), strict=True)
    for row, derived in pairs:
        number = row["answer"].rsplit("#### ", 1)[1]
        assert derived["query"] == row["question"]
        assert "<<" not in derived["response"]
        assert derived["response"].endswith(f"\n#### {number}\nThe answer is: {number}")


@settings(max_examples=20)
@given(SPLITS, SEEDS)
def test_exercise_steps_are_correct_and_the_box_holds_the_answer(split: str, seed: int) -> None:
    rows = word_problems_math.math_rows(split, 40, seed)
    assert len({row["problem"] for row in rows}) == 40
    for row, derived in zip(rows, metamath.exercise_rows(split, 40, seed), strict=True):
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)(?!\d)", row["solution"]):
            assert calculate(left, sign, right) == int(result)
        boxed = row["solution"].rsplit("\\boxed{", 1)[1].removesuffix("}$.")
        assert derived["response"].endswith(f"\nThe answer is: {boxed}")


def test_fraction_answers_are_in_lowest_terms() -> None:
    found = 0
    for row in word_problems_math.math_rows("train", 300):
        for top, bottom in re.findall(r"\\boxed\{\\frac\{(\d+)\}\{(\d+)\}\}", row["solution"]):
            assert Fraction(int(top), int(bottom)).denominator == int(bottom)
            found += 1
    assert found > 50


def test_sums_of_fractions_are_correct() -> None:
    shown = re.compile(r"^Compute \$\\frac\{(\d+)\}\{(\d+)\} \+ \\frac\{(\d+)\}\{(\d+)\}\$\.$")
    checked = 0
    for row in word_problems_math.math_rows("train", 500):
        if match := shown.match(row["problem"]):
            a, b, c, d = map(int, match.groups())
            assert f"\\boxed{{{word_problems_math.latex(Fraction(a, b) + Fraction(c, d))}}}" in row["solution"]
            checked += 1
    assert checked > 10


def test_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        word_problems.rows("dev", 1)


def test_too_large_a_count_is_refused_with_the_largest() -> None:
    with pytest.raises(ValueError, match="accepted: at most about"):
        word_problems_math.math_rows("test", 50_000)
