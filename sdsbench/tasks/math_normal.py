r"""Hendrycks' normal form of a MATH answer (2103.03874): two answers are the same if their normal forms are.

The rules are theirs, in their order; this writing of them is ours. Like theirs it raises on some malformed answers
("x/2", a lone \frac, two \text{ units}), and what a grader makes of that is its own business: see math.py.
"""

from __future__ import annotations

import re

_DROP = ("\n", "\\!", "\\left", "\\right", "^{\\circ}", "^\\circ", "\\$")


def normal_form(answer: str) -> str:
    """The answer's normal form. Raises ValueError or IndexError on some malformed answers."""
    for drop in _DROP:
        answer = answer.replace(drop, "")
    answer = answer.replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    answer = _without_unit(answer)
    answer = answer.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not answer:
        return answer
    if answer[0] == ".":
        answer = "0" + answer
    sides = answer.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:  # "k = 3"
        answer = sides[1]
    answer = _braced_roots(answer).replace(" ", "")
    answer = _braced_fractions(answer)
    if answer == "0.5":
        answer = "\\frac{1}{2}"
    return _slash_as_fraction(answer)


def _without_unit(answer: str) -> str:
    parts = answer.split("\\text{ ")
    if len(parts) > 2:
        raise ValueError("more than one unit")
    return parts[0]


def _braced_roots(answer: str) -> str:
    r"""\sqrt3 as \sqrt{3}. Raises IndexError for a \sqrt of nothing."""
    head, *roots = answer.split("\\sqrt")
    return head + "".join(f"\\sqrt{root}" if root[0] == "{" else f"\\sqrt{{{root[0]}}}{root[1:]}" for root in roots)


def _braced_fractions(answer: str) -> str:
    r"""\frac12 as \frac{1}{2}. Raises IndexError for a \frac of nothing."""
    head, *fractions = answer.split("\\frac")
    result = head
    for fraction in fractions:
        if fraction[0] == "{":
            result += "\\frac" + fraction
        elif len(fraction) < 2:
            return answer
        else:
            numerator, denominator, rest = fraction[0], fraction[1], fraction[2:]
            closed = denominator if denominator == "{" else f"{{{denominator}}}"
            result += f"\\frac{{{numerator}}}{closed}{rest}"
    return result


def _slash_as_fraction(answer: str) -> str:
    r"""3/4 as \frac{3}{4}. Raises ValueError if a side of the only slash is no whole number."""
    sides = answer.split("/")
    if len(sides) != 2:
        return answer
    numerator, denominator = (int(side) for side in sides)
    return f"\\frac{{{numerator}}}{{{denominator}}}" if f"{numerator}/{denominator}" == answer else answer


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", re.ASCII)


def plain_number(answer: str) -> str | None:
    """The decimal number that the answer is, without thousands commas, or None."""
    answer = answer.strip()
    if _THOUSANDS.fullmatch(answer):
        return answer.replace(",", "")
    return answer if _NUMBER.fullmatch(answer) else None
