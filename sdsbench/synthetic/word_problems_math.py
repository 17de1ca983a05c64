"""Generated short exercises in the schema of hendrycks_math; records never label them as MATH.

A sample row of `math_rows`:

    problem   Compute $\\frac{1}{2} + \\frac{1}{3}$.
    level     Level 3
    type      Prealgebra
    solution  With the denominator $6$ we get $\\frac{3}{6} + \\frac{2}{6} = \\frac{5}{6}$. ... $\\boxed{\\frac{5}{6}}$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from sdsbench.synthetic.word_problems_splits import distinct, generator, split_of

Exercise = tuple[str, str, Fraction]  # problem, steps, answer
Family = Callable[[np.random.Generator], Exercise]


def latex(value: Fraction) -> str:
    """A number in MATH's LaTeX: 3, -2, \\frac{5}{6}, -\\frac{1}{2}."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _numbers(rng: np.random.Generator, *ranges: tuple[int, int]) -> list[int]:
    return [int(rng.integers(low, high + 1)) for low, high in ranges]


def _proper(rng: np.random.Generator) -> Fraction:
    denominator = int(rng.integers(3, 10))
    return Fraction(int(rng.integers(1, denominator)), denominator)


def shifted_equation(rng: np.random.Generator) -> Exercise:
    x, b = _numbers(rng, (1, 40), (2, 40))
    return f"Solve for $x$: $x + {b} = {x + b}$.", f"We get $x = {x + b} - {b} = {x}$.", Fraction(x)


def linear_equation(rng: np.random.Generator) -> Exercise:
    a, x, b = _numbers(rng, (2, 9), (1, 9), (1, 20))
    problem = f"Solve for $x$: ${a}x + {b} = {a * x + b}$."
    return problem, f"We get ${a}x = {a * x + b} - {b} = {a * x}$ and $x = {a * x} / {a} = {x}$.", Fraction(x)


def expression(rng: np.random.Generator) -> Exercise:
    a, x, b = _numbers(rng, (2, 9), (2, 9), (1, 20))
    problem = f"If $x = {x}$, what is the value of ${a}x + {b}$?"
    return problem, f"We have ${a} * {x} = {a * x}$ and ${a * x} + {b} = {a * x + b}$.", Fraction(a * x + b)


def sum_of_fractions(rng: np.random.Generator) -> Exercise:
    p, q = _proper(rng), _proper(rng)
    common = math.lcm(p.denominator, q.denominator)
    over = [f"\\frac{{{int(part * common)}}}{{{common}}}" for part in (p, q, p + q)]
    problem = f"Compute ${latex(p)} + {latex(q)}$."
    return problem, f"With the denominator ${common}$ we get ${over[0]} + {over[1]} = {over[2]}$.", p + q


def product_of_fractions(rng: np.random.Generator) -> Exercise:
    p, q = _proper(rng), _proper(rng)
    top, bottom = p.numerator * q.numerator, p.denominator * q.denominator
    return f"Compute ${latex(p)} \\cdot {latex(q)}$.", f"The product is $\\frac{{{top}}}{{{bottom}}}$.", p * q


def lowest_terms(rng: np.random.Generator) -> Exercise:
    p, factor = _proper(rng), int(rng.integers(2, 10))
    shown = f"\\frac{{{p.numerator * factor}}}{{{p.denominator * factor}}}"
    return f"Write ${shown}$ in lowest terms.", f"Both parts can be divided by ${factor}$.", p


def fraction_of(rng: np.random.Generator) -> Exercise:
    p, part = _proper(rng), int(rng.integers(1, 10))
    whole = p.denominator * part
    problem = f"What is ${latex(p)}$ of ${whole}$?"
    steps = f"We have ${whole} / {p.denominator} = {part}$ and ${part} * {p.numerator} = {part * p.numerator}$."
    return problem, steps, p * whole


def linear_quotient(rng: np.random.Generator) -> Exercise:
    a, b = _numbers(rng, (2, 12), (1, 30))
    return f"Solve ${a}x = {b}$ for $x$.", f"We divide by ${a}$: $x = {b} / {a}$.", Fraction(b, a)


def rectangle_area(rng: np.random.Generator) -> Exercise:
    a, b = _numbers(rng, (2, 12), (2, 12))
    problem = f"A rectangle has sides of length ${a}$ and ${b}$. What is its area?"
    return problem, f"The area is ${a} * {b} = {a * b}$.", Fraction(a * b)


def rectangle_perimeter(rng: np.random.Generator) -> Exercise:
    a, b = _numbers(rng, (2, 30), (2, 30))
    problem = f"A rectangle has sides of length ${a}$ and ${b}$. What is its perimeter?"
    return problem, f"We have ${a} + {b} = {a + b}$ and ${a + b} * 2 = {2 * (a + b)}$.", Fraction(2 * (a + b))


def remainder(rng: np.random.Generator) -> Exercise:
    b, quotient = _numbers(rng, (3, 9), (1, 9))
    rest = int(rng.integers(0, b))
    a = b * quotient + rest
    problem = f"What is the remainder when ${a}$ is divided by ${b}$?"
    return problem, f"We have ${b} * {quotient} = {a - rest}$ and ${a} - {a - rest} = {rest}$.", Fraction(rest)


def average(rng: np.random.Generator) -> Exercise:
    a, b = _numbers(rng, (1, 50), (1, 50))
    problem = f"What is the average of ${a}$ and ${b}$?"
    return problem, f"The sum is ${a} + {b} = {a + b}$, and we divide by $2$.", Fraction(a + b, 2)


def ratio(rng: np.random.Generator) -> Exercise:
    a, b = _numbers(rng, (1, 20), (2, 20))
    problem = f"A bag holds ${a}$ red and ${b}$ blue balls. What is the probability that a random ball is red?"
    return problem, f"There are ${a} + {b} = {a + b}$ balls, and ${a}$ of them are red.", Fraction(a, a + b)


FAMILIES: tuple[tuple[str, int, Family], ...] = (
    ("Algebra", 1, shifted_equation),
    ("Algebra", 2, linear_equation),
    ("Algebra", 2, expression),
    ("Algebra", 3, linear_quotient),
    ("Prealgebra", 3, sum_of_fractions),
    ("Prealgebra", 3, product_of_fractions),
    ("Prealgebra", 2, lowest_terms),
    ("Prealgebra", 2, fraction_of),
    ("Prealgebra", 2, average),
    ("Geometry", 1, rectangle_area),
    ("Geometry", 2, rectangle_perimeter),
    ("Number Theory", 2, remainder),
    ("Counting & Probability", 4, ratio),
)


def draw_exercise(split: str, rng: np.random.Generator) -> tuple[dict[str, str], Fraction]:
    """Draw one exercise of a split, with its answer. The problem's text is its canonical form."""
    subject, level, family = FAMILIES[rng.integers(len(FAMILIES))]
    while True:
        problem, steps, answer = family(rng)
        if split_of(problem) == split:
            solution = f"{steps} So the answer is $\\boxed{{{latex(answer)}}}$."
            return {"problem": problem, "level": f"Level {level}", "type": subject, "solution": solution}, answer


def rows_with_answers(split: str, count: int, seed: int) -> list[tuple[dict[str, str], str]]:
    """The exercises of `math_rows`, each with its answer in LaTeX."""
    rng = generator(split, seed)

    def draw() -> tuple[str, dict[str, str]]:
        row, answer = draw_exercise(split, rng)
        return row["problem"], row | {"answer": latex(answer)}

    made = list(distinct(draw, count))
    answers = [row.pop("answer") for row in made]
    return list(zip(made, answers, strict=True))


def math_rows(split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` distinct exercises with the columns problem, level, type, solution.

    Splits share no exercise at any count or seed. A split holds a few thousand exercises; asking for more raises
    ValueError.
    """
    return [row for row, _ in rows_with_answers(split, count, seed)]


def math500_rows(split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """The exercises of `math_rows` in the columns of MATH-500, which calls the type a subject."""
    return [{"subject": row.pop("type")} | row for row in math_rows(split, count, seed)]
