"""Graders of GSM8K: (gold number, generated text) -> correct. They never raise and use no library.

The gold number is the one after `####`, without thousands commas. All four are other projects' programs, rewritten here
and held to their verdicts by tests. Where a program ends with an error (a fraction with denominator 00), the answer is
wrong here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

from sdsbench.tasks.answer_extraction import after_last_mark
from sdsbench.tasks.graders.lora_sb_answer import numbers_close
from sdsbench.tasks.graders.math_answer import ANSWER_MARK


def paper(gold: str, text: str) -> bool:
    """LoRA-SB's gsm8k_eval.py (2411.19557): MetaMath's number, within a ten-thousandth of the gold number.

    The gold number times or divided by 100 also counts (meant for percentages).
    """
    predicted = first_number_rounded(text)
    wanted = gold_number(gold)
    return predicted is not None and wanted is not None and numbers_close(wanted, float(predicted))


def metamath(gold: str, text: str) -> bool:
    """MetaMath's eval_gsm8k.py (2309.12284): the first number after the last `The answer is: `, rounded.

    17.6 becomes 18, `1,234,567` is read as 1,234, and any other wording of the answer counts as wrong.
    """
    predicted = first_number_rounded(text)
    return predicted is not None and float(predicted) == gold_number(gold)


def strict(gold: str, text: str) -> bool:
    """lm-eval's strict-match: the number after the first `#### `."""
    found = re.search(r"#### (\-?[0-9\.\,]+)", text)
    return found is not None and _same_as_gold(gold, found.group(1))


def flexible(gold: str, text: str) -> bool:
    """lm-eval's flexible-extract: the last number of the text."""
    found = re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", text)
    return bool(found) and _same_as_gold(gold, found[-1])


GRADERS: dict[str, Callable[[str, str], bool]] = {
    grader.__name__: grader for grader in (flexible, strict, paper, metamath)
}


def gold_number(gold: str) -> float | None:
    """The gold number, or None if the answer is not a number (rows are checked when read, stored answers are not)."""
    try:
        number = float(gold)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _same_as_gold(gold: str, answer: str) -> bool:
    """lm-eval's exact_match for GSM8K: commas, dollar signs and a final point do not count."""
    return answer.strip().replace(",", "").replace("$", "").removesuffix(".") == gold


_NUMBER = re.compile(r"[-+]?\d*[.,/]?\d+")
_LONGEST_NUMBER = 4300
"""Most digits that Python's int() accepts by default."""


def first_number_rounded(text: str) -> int | None:
    """MetaMath's extract_answer_number: digits of any script, one point, comma or slash; None if there is none."""
    answer = after_last_mark(text, ANSWER_MARK)
    match = None if answer is None else _NUMBER.search(answer)
    if match is None or len(match.group()) > _LONGEST_NUMBER:
        return None
    numerator, slash, denominator = match.group().replace(",", "").partition("/")
    if numerator in ("", "+", "-"):  # "/7"
        return None
    try:
        if slash and denominator != "0":
            fraction = Fraction(f"{numerator}/{denominator}")
            return round(fraction.numerator / fraction.denominator)
        value = float(numerator)
    except (OverflowError, ZeroDivisionError):
        return None
    return None if math.isinf(value) else round(value)
