r"""Graders of MATH: (gold answer, generated text) -> correct, wrong, or None: undecided (see sdsbench.tasks.symbolic).

A gold answer is the content of the last \boxed{} of a solution. No text raises an error. Six graders reimplement other
projects' programs, and tests compare their verdicts with the originals; `fixed` is this project's own and ranks runs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from sdsbench.tasks import symbolic
from sdsbench.tasks.answer_extraction import after_last_mark
from sdsbench.tasks.graders import lora_sb
from sdsbench.tasks.graders import minerva as minerva_form
from sdsbench.tasks.graders.hendrycks import normal_form, plain_number
from sdsbench.tasks.symbolic import Verdict

ANSWER_MARK = "The answer is: "
LONGEST_ANSWER = 400
"""Characters. `fixed` counts longer answers, given or gold, as wrong; no gold answer of MATH has half as many."""
LONGEST_LINE = 10_000
"""Characters. `minerva` leaves longer answers undecided, as the time of its normal form grows with their square."""


def paper(gold: str, text: str) -> Verdict:
    """LoRA-SB's MATH_eval.py (2411.19557) with sympy's LaTeX parser, that is with antlr installed.

    Its flaws are kept. It counts as correct: any answer if its normal form, or that of the gold answer, raises an error
    ("x/2" for 7); numbers within 1e-4 of the gold answer, of its hundredth or of a hundred times it; other expressions
    within 1e-3.
    """
    answer = marked_answer(text)
    return False if answer is None else lora_sb.equivalent(gold, answer, "lora_sb")


def paper_no_antlr(gold: str, text: str) -> Verdict:
    """The same program with the packages of its requirements: without antlr, so that sympy parses no LaTeX."""
    answer = marked_answer(text)
    return False if answer is None else lora_sb.equivalent(gold, answer, "lora_sb_no_antlr")


def metamath(gold: str, text: str) -> bool:
    """MetaMath's eval_math.py (2309.12284): equal normal forms, or equal texts if a normal form raises an error."""
    answer = marked_answer(text)
    if answer is None:
        return False
    try:
        return normal_form(answer) == normal_form(gold)
    except (ValueError, IndexError):
        return answer == gold


def minerva(gold: str, text: str) -> Verdict:
    """lm-eval's exact_match of minerva_math: the answer from a fixed sentence, normalised, compared by sympy's LaTeX.

    An answer that sympy cannot parse, such as an interval, is wrong even if it equals the gold answer.
    """
    answer = minerva_form.final_answer(text)
    if answer == minerva_form.INVALID:
        return False
    if len(answer) > LONGEST_LINE:
        return None
    return symbolic.equal("sympy_latex", minerva_form.normal_form(gold), minerva_form.normal_form(answer))


def math_verify(gold: str, text: str) -> Verdict:
    """math-verify on the whole text, as lm-eval calls it."""
    return symbolic.equal("math_verify", gold, text)


def math_verify_marked(gold: str, text: str) -> Verdict:
    """math-verify on the text after the last ANSWER_MARK; a text without the mark is wrong."""
    answer = marked_answer(text)
    if answer is None or answer == gold:
        return answer is not None
    return symbolic.equal("math_verify_marked", gold, answer.strip("$"))


def fixed(gold: str, text: str) -> Verdict:
    """The grader to rank by: as `paper`, but a malformed answer is wrong and numbers must be equal exactly."""
    answer = marked_answer(text)
    if answer is None or max(len(answer), len(gold)) > LONGEST_ANSWER:
        return False
    if answer == gold:
        return True
    try:
        expected, predicted = normal_form(gold), normal_form(answer)
    except (ValueError, IndexError):
        return False
    if expected == predicted:
        return True
    numbers = plain_number(expected), plain_number(predicted)
    if numbers[0] is not None and numbers[1] is not None:
        return Fraction(numbers[0]) == Fraction(numbers[1])
    return symbolic.equal("latex_difference", expected, predicted)


GRADERS: dict[str, Callable[[str, str], Verdict]] = {
    grader.__name__: grader
    for grader in (fixed, paper, paper_no_antlr, metamath, minerva, math_verify, math_verify_marked)
}


def marked_answer(text: str) -> str | None:
    """The text after the last ANSWER_MARK, up to the end of its sentence; None without the mark."""
    after = after_last_mark(text, ANSWER_MARK)
    return None if after is None else after.split(".\n")[0].strip().removesuffix(".").strip()
