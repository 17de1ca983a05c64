r"""Hendrycks' normal form of a MATH answer (2103.03874): two answers are the same if their normal forms are.

The rules and their order are theirs; the code is ours. Like theirs it raises on some malformed answers ("x/2", a lone
\frac, two \text{ units}); each grader decides how to count those (math.py).
"""

from __future__ import annotations

import re

_BEFORE_UNITS = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)
_AFTER_UNITS = (("\\%", ""), (" .", " 0."), ("{.", "{0."))


def normal_form(answer: str) -> str:
    """The answer's normal form. Raises ValueError or IndexError on some malformed answers."""
    for old, new in _BEFORE_UNITS:
        answer = answer.replace(old, new)
    answer = _without_unit(answer)
    for old, new in _AFTER_UNITS:
        answer = answer.replace(old, new)
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
    r"""3/4 as \frac{3}{4}. Raises ValueError if there is one slash and a side of it is not a whole number."""
    sides = answer.split("/")
    if len(sides) != 2:
        return answer
    if not all(_is_whole_number(side) for side in sides):
        raise ValueError("a slash between other things than whole numbers")
    if not all(_PLAINLY_WRITTEN.fullmatch(side) for side in sides):
        return answer
    return f"\\frac{{{sides[0]}}}{{{sides[1]}}}"


_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+(_\d+)*\s*")
_PLAINLY_WRITTEN = re.compile(r"0|-?[1-9][0-9]*")
_MOST_DIGITS = 4300


def _is_whole_number(text: str) -> bool:
    """Whether Python's int() accepts the text, independent of the environment's limit on digits."""
    return bool(_WHOLE_NUMBER.fullmatch(text)) and sum(map(str.isdigit, text)) <= _MOST_DIGITS


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", re.ASCII)


def plain_number(answer: str) -> str | None:
    """The answer without thousands commas if it is a decimal number, else None."""
    answer = answer.strip()
    if _THOUSANDS.fullmatch(answer):
        return answer.replace(",", "")
    return answer if _NUMBER.fullmatch(answer) else None
