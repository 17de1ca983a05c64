"""Equality of two MATH answers as LoRA-SB's published grader has it (its utils.py and grader.py; 2411.19557).

An answer passes if one of these holds, asked in this order: a normal form raises; both are numbers and close; both are
the same text without brackets; both are lists with equal members; sympy takes them for equal or close.
"""

from __future__ import annotations

import math
from typing import Literal

from sdsbench.tasks import symbolic
from sdsbench.tasks.graders.hendrycks import normal_form
from sdsbench.tasks.symbolic import Verdict

Library = Literal["lora_sb", "lora_sb_no_antlr"]


def equivalent(gold: str, predicted: str, library: Library) -> Verdict:
    """Whether the program counts the predicted answer as correct. Identical texts or normal forms need no library
    call."""
    try:
        expected, found = normal_form(gold), normal_form(predicted)
    except (ValueError, IndexError):
        return _equals_itself(predicted) or predicted == gold
    try:
        return True if expected == found else _math_equal(expected, found, library)
    except RecursionError:  # a thousand brackets around each
        return None


def _equals_itself(answer: str) -> bool:
    """Verdict if a normal form raises: the program then compares the answer with itself, which fails only for "" and
    NaN."""
    value = _as_float(answer)
    return bool(answer) if value is None else not math.isnan(value)


def numbers_close(gold: float, predicted: float) -> bool:
    """Within a ten-thousandth of the gold number, of its hundredth (a percentage), or of a hundred times it."""
    return any(math.isclose(value, predicted, rel_tol=1e-4) for value in (gold / 100, gold, gold * 100))


def _math_equal(gold: str, predicted: str, library: Library) -> Verdict:
    numbers = _as_float(gold), _as_float(predicted)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers_close(numbers[0], numbers[1])
    if not predicted:
        return False
    gold, predicted = gold.strip(), predicted.strip()
    if _same_without_brackets(gold, predicted):
        return True
    parts = _parts_equal(gold, predicted, library)
    if parts:
        return True
    whole = symbolic.equal(library, gold, predicted)
    return None if parts is None and whole is False else whole


def _same_without_brackets(gold: str, predicted: str) -> bool:
    square, round_ = _within(predicted, "[]"), _within(predicted, "()")
    if (square and not gold.startswith("(")) or (round_ and not gold.startswith("[")):
        gold, predicted = gold.strip("[]()"), predicted.strip("[]()")
    without = str.maketrans("", "", "{}()")
    return gold.translate(without) == predicted.translate(without)


def _parts_equal(gold: str, predicted: str, library: Library) -> Verdict:
    """Whether both are in the same kind of brackets and equal between the commas; None if a part is undecided."""
    if not any(_within(gold, pair) and _within(predicted, pair) for pair in ("[]", "()")):
        return False
    pairs = list(zip(gold[1:-1].split(","), predicted[1:-1].split(","), strict=False))
    if gold[1:-1].count(",") != predicted[1:-1].count(","):
        return False
    found: Verdict = True
    for one, other in pairs:
        verdict = _math_equal(one, other, library)
        if verdict is False:
            return False
        found = found and verdict
    return found


def _within(text: str, pair: str) -> bool:
    return text.startswith(pair[0]) and text.endswith(pair[1])


def _as_float(answer: str) -> float | None:
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return None
