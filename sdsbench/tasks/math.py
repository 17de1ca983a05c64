r"""MATH: competition problems (Hendrycks et al. 2021). A sample row:

    {"problem": "How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?",
     "level": "Level 3",
     "type": "Algebra",
     "solution": "The denominator factors into $(x-2)(x+3)$. ... the graph has $\\boxed{2}$ vertical asymptotes."}

Zero-shot with the training prompt; several graders read one generation: see graders/math.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from sdsbench.core.section import Count
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, ColumnCheck
from sdsbench.tasks.answer_extraction import last_boxed
from sdsbench.tasks.base import Evaluation, Generation, Row, register
from sdsbench.tasks.graders import math as graders
from sdsbench.tasks.math_training import MathTask, MathTaskConfig, answered

COLUMNS = ("problem", "solution")
_HUGE = re.compile(r"(e|\^)\s*\{?\s*[+-]?\d{5}", re.IGNORECASE)  # sympy would compute such a power in full


def gold(row: Row) -> str:
    """The content of the last box in the solution."""
    return last_boxed(row["solution"]) or ""


def _has_gold(solution: Any, row: Row) -> bool:
    if not TEXT.holds(solution, row):
        return False
    answer = gold(row)
    return bool(answer.strip()) and len(answer) <= graders.LONGEST_ANSWER and not _HUGE.search(answer)


_GOLD = f"a solution with its answer in \\boxed{{...}}: at most {graders.LONGEST_ANSWER} characters, no huge exponent"
CHECKS = {"problem": TEXT, "solution": TEXT}
GOLDS = {"solution": ColumnCheck(_GOLD, _has_gold)}  # two training rows of MATH have none
catalogue.add(
    DataSet(
        name="hendrycks_math",
        columns=COLUMNS,
        checks=CHECKS,
        golds=GOLDS,
        hub_id="DigitalLearningGmbH/MATH-lighteval",  # the seven subjects of hendrycks/competition_math in one set
        revision="0530c78699ea5e8eb5530600900e1f328b48acad",
        folder="hendrycks_math",
        classes="type",
    ),
    DataSet(
        name="math500",
        columns=COLUMNS,
        checks=CHECKS,
        golds=GOLDS,
        hub_id="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        splits={"test": "test"},
        folder="MATH-500",
        classes="subject",
        held_back_from="hendrycks_math",
    ),
)


class MathConfig(MathTaskConfig):
    max_new_tokens: Count = Field(512, description="largest length of a generated answer, in tokens")
    math_test_set: Literal["hendrycks_math", "math500"] = Field(
        "hendrycks_math", description="test set: 5,000 problems, or 500 of them"
    )


@register("math", MathConfig)
class Math(MathTask):
    def evaluations(self) -> Sequence[Evaluation]:
        return [evaluation(self.config)]


def evaluation(config: MathConfig) -> Generation:
    name = "math" if config.math_test_set == "hendrycks_math" else config.math_test_set
    version = 2  # 1 had another `paper`, a `math_verify` of the marked answer, and limits that load could reach
    return answered(name, version, config.math_test_set, "problem", gold, graders.GRADERS, "fixed", config)
