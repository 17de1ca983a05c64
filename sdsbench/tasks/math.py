r"""MATH: competition problems (Hendrycks et al. 2021). A sample row:

    {"problem": "How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?",
     "level": "Level 3",
     "type": "Algebra",
     "solution": "The denominator factors into $(x-2)(x+3)$. ... the graph has $\\boxed{2}$ vertical asymptotes."}

Zero-shot with the training prompt; three scorers read one generation (see the end of the file).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from pydantic import Field

from sdsbench.core.section import Count
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.tasks import symbolic
from sdsbench.tasks.answers import after_last_mark, last_boxed
from sdsbench.tasks.base import Evaluation, Generation, Row, Task, TextExample, register
from sdsbench.tasks.math_normal import normal_form, plain_number
from sdsbench.tasks.math_training import ANSWER_MARK, MathTaskConfig, evaluation_prompt, training_example
from sdsbench.tasks.prompts import STOP

COLUMNS = ("problem", "solution")
catalogue.add(
    DataSet(
        name="hendrycks_math",
        columns=COLUMNS,
        hub_id="DigitalLearningGmbH/MATH-lighteval",  # the seven subjects of hendrycks/competition_math in one set
        revision="0530c78699ea5e8eb5530600900e1f328b48acad",
        folder="hendrycks_math",
    ),
    DataSet(
        name="math500",
        columns=COLUMNS,
        hub_id="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        splits={"test": "test"},
        folder="MATH-500",
        held_back_from="hendrycks_math",
    ),
)


class MathConfig(MathTaskConfig):
    max_new_tokens: Count = Field(512, description="cap of one generated answer, in tokens")
    math_test_set: Literal["hendrycks_math", "math500"] = Field(
        "hendrycks_math", description="5,000 problems, or 500 of them"
    )


@register("math", MathConfig)
class Math(Task):
    kind = "text"

    def training_example(self, row: Row) -> TextExample:
        return training_example(row, self.config)

    def evaluations(self) -> Sequence[Evaluation]:
        return [evaluation(self.config)]


def evaluation(config: MathConfig) -> Generation:
    return Generation(
        name="math" if config.math_test_set == "hendrycks_math" else config.math_test_set,
        version=1,
        dataset=config.math_test_set,
        split="test",
        prompt=lambda row: evaluation_prompt(row["problem"], config),
        target=lambda row: gold(row),
        scorers={"paper": paper, "fixed": fixed, "math_verify": math_verify},
        headline="fixed",
        max_new_tokens=config.max_new_tokens,
        stop=STOP,
        beams=config.beams,
    )


# --- scorers: (row, generated text) -> correct; no input raises, none takes a second (symbolic.py) ---


def gold(row: Row) -> str:
    """What the solution's last box holds."""
    return last_boxed(row["solution"]) or ""


def paper(row: Row, text: str) -> bool:
    """The papers' grader: what follows the last `The answer is: `, in Hendrycks' normal form, equal to the gold answer
    as a string, as a number (within 1e-4, also times or divided by 100), or for sympy.

    Its flaw is kept: an answer that makes the normaliser raise counts as correct ("x/2" for 7).
    """
    answer = _final_answer(text)
    if answer is None:
        return False
    try:
        expected, predicted = normal_form(gold(row)), normal_form(answer)
    except (ValueError, IndexError):
        return True
    if expected == predicted:
        return True
    numbers = _as_float(expected), _as_float(predicted)
    if numbers[0] is not None and numbers[1] is not None:
        return any(math.isclose(numbers[0] * scale, numbers[1], rel_tol=1e-4) for scale in (1, 100, 0.01))
    return symbolic.equal("sympy", expected, predicted)


def fixed(row: Row, text: str) -> bool:
    """The grader to rank by: as `paper`, but a malformed answer is wrong and numbers must be equal exactly."""
    answer = _final_answer(text)
    if answer is None:
        return False
    if answer == gold(row):
        return True
    try:
        expected, predicted = normal_form(gold(row)), normal_form(answer)
    except (ValueError, IndexError):
        return False
    if expected == predicted:
        return True
    numbers = plain_number(expected), plain_number(predicted)
    if numbers[0] is not None and numbers[1] is not None:
        return Fraction(numbers[0]) == Fraction(numbers[1])
    return symbolic.equal("sympy", expected, predicted)


def math_verify(row: Row, text: str) -> bool:
    """math-verify on what follows the last `The answer is: `; without that mark, on the end of the text."""
    answer = _final_answer(text)
    predicted = text[-symbolic.LONGEST_ANSWER :] if answer is None else f"${answer.strip('$')}$"
    return symbolic.equal("math_verify", gold(row), predicted)


def _final_answer(text: str) -> str | None:
    """What follows the last mark, up to the end of its sentence; None too if it is too long to be an answer."""
    after = after_last_mark(text, ANSWER_MARK)
    if after is None:
        return None
    answer = after.split(".\n")[0].strip().removesuffix(".").strip()
    return answer if len(answer) <= symbolic.LONGEST_ANSWER else None


def _as_float(answer: str) -> float | None:
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return None
