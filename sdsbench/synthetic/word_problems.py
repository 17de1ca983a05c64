"""Generated word problems with worked solutions in GSM8K's schema; records never label them as GSM8K.

A sample row of `rows`:

    question  Anna has 5 apples. She buys 3 more apples at the shop and then gives 2 of them to Tom. How many ...
    answer    After buying more, Anna has 5 + 3 = <<5+3=8>>8 apples.
              After the gift, Anna has 8 - 2 = <<8-2=6>>6 apples left.
              #### 6
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from sdsbench.synthetic.word_problems_splits import distinct, generator, one_of, split_of
from sdsbench.synthetic.word_problems_templates import (
    BOYS,
    DAYS,
    GIRLS,
    PLACES,
    TEMPLATES,
    THINGS,
    SolutionStep,
    Template,
)

LARGEST = 144  # largest value in a problem, so that small models can learn the arithmetic
_OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
_ANNOTATION = re.compile(r"<<([^=<>]*)=([^<>]*)>>")


@dataclass(frozen=True)
class WordProblem:
    """A template with numbers and words filled in. `values` holds the given numbers and all intermediate results."""

    template: Template
    values: Mapping[str, int]
    words: Mapping[str, str]

    @property
    def question(self) -> str:
        return self.template.story.format(**self.values, **self.words)

    @property
    def result(self) -> int:
        return self.values[self.template.steps[-1].formula[0]]

    def equations(self) -> list[tuple[int, str, int, int]]:
        """The steps as (left, operator, right, result)."""
        return [_equation(step, self.values) for step in self.template.steps]

    def answer(self) -> str:
        """The worked solution, one line per step, with calculator annotations."""
        lines = []
        for step, (left, sign, right, result) in zip(self.template.steps, self.equations(), strict=True):
            before, after = (text.format(**self.words) for text in (step.before, step.after))
            lines.append(f"{before} {left} {sign} {right} = <<{left}{sign}{right}={result}>>{result} {after}.")
        return "\n".join([*lines, f"#### {self.result}"])


@cache
def _parts(formula: str) -> tuple[str, str, str, str]:
    """(result, left, operator, right) of "result = left operator right"; cached, since formulas recur very often."""
    name, _, left, sign, right = formula.split()
    return name, left, sign, right


def _equation(step: SolutionStep, values: Mapping[str, int]) -> tuple[int, str, int, int]:
    name, left, sign, right = _parts(step.formula)
    operand = values[right] if right in values else int(right)
    return values[left], sign, operand, values[name]


def solve(template: Template, given: Mapping[str, int]) -> dict[str, int] | None:
    """All values of a problem; None if a step's result is no whole number from 1 to LARGEST."""
    values = dict(given)
    for step in template.steps:
        name, left, sign, right = _parts(step.formula)
        operand = values[right] if right in values else int(right)
        if sign == "/" and values[left] % operand:
            return None
        values[name] = _OPERATORS[sign](values[left], operand)
        if not 1 <= values[name] <= LARGEST:
            return None
    return values


def canonical(template: Template, given: Mapping[str, int]) -> str:
    """The canonical form of a problem, template and numbers without names and objects; equal forms mean one problem."""
    return f"{template.name}:" + ",".join(f"{name}={given[name]}" for name in sorted(template.ranges))


def draw_problem(split: str, rng: np.random.Generator, templates: tuple[Template, ...] = TEMPLATES) -> WordProblem:
    """Draw one problem of a split."""
    template = templates[rng.integers(len(templates))]
    while True:
        given = {name: int(rng.integers(low, high + 1)) for name, (low, high) in template.ranges.items()}
        values = solve(template, given)
        if values is not None and split_of(canonical(template, given)) == split:
            return WordProblem(template, values, _words(rng))


def _words(rng: np.random.Generator) -> dict[str, str]:
    girl = bool(rng.integers(2))
    name = one_of(rng, GIRLS if girl else BOYS)
    friend = one_of(rng, [other for other in (*GIRLS, *BOYS) if other != name])
    words = {"name": name, "friend": friend, "he": "she" if girl else "he", "his": "her" if girl else "his"}
    words["He"] = words["he"].capitalize()
    return words | {
        "things": one_of(rng, THINGS),
        "day": one_of(rng, DAYS),
        "place": one_of(rng, PLACES),
    }


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` distinct problems with GSM8K's columns question, answer.

    Splits (train, validation, test, pretrain) share no problem at any count or seed; the first rows do not depend on
    `count`. Raises ValueError for an unknown split.
    """
    rng = generator(split, seed)

    def draw() -> tuple[str, dict[str, str]]:
        problem = draw_problem(split, rng)
        return problem.question, {"question": problem.question, "answer": problem.answer()}

    return list(distinct(draw, count))


def without_annotations(answer: str) -> str:
    """A GSM8K answer without its <<...>> parts."""
    return _ANNOTATION.sub("", answer)
