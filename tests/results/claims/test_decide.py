"""From intervals to answers: of one context, and of several together."""

from __future__ import annotations

import math

import pytest

from sdsbench.results.claims.decide import decide, joint_answer, needed_to_decide
from sdsbench.results.statistics import contrasts, variances


@pytest.mark.parametrize(
    "test, low, high, margin, answer",
    [
        ("higher", 0.1, 2, 0, "reproduced"),
        ("higher", -2, -0.1, 0, "contradicted"),
        ("higher", -1, 0.4, 0.5, "contradicted"),
        ("higher", -1, 1, 0.5, "undecided"),
        ("not_lower", -0.4, 1, 0.5, "reproduced"),
        ("not_lower", -2, -0.6, 0.5, "contradicted"),
        ("not_lower", -0.6, 1, 0.5, "undecided"),
        ("within", -0.9, 0.9, 1, "reproduced"),
        ("within", 1.1, 2, 1, "contradicted"),
        ("within", 0.5, 2, 1, "undecided"),
        ("below", 1, 1.9, 2, "reproduced"),
        ("below", 2.1, 3, 2, "contradicted"),
        ("higher", math.nan, math.nan, 0, "undecided"),
    ],
)
def test_interval_and_margin_decide_the_answer(test: str, low: float, high: float, margin: float, answer: str) -> None:
    assert decide(test, low, high, margin) == answer


def comparison_of(mean: float, deviation: float = 1.0, seeds: int = 3) -> contrasts.Comparison:
    return contrasts.concluded("t", mean, variances.Variances(deviation**2 / seeds, seeds - 1), seeds)


def test_all_contexts_must_agree_or_one_must_clearly_contradict() -> None:
    clear, against, open_ = comparison_of(9.0), comparison_of(-30.0), comparison_of(0.5)
    assert joint_answer("higher", 0.0, [clear, clear]) == "reproduced"
    assert joint_answer("higher", 0.0, [clear, open_]) == "undecided"
    assert joint_answer("higher", 0.0, [clear, open_, against]) == "contradicted"
    assert joint_answer("higher", 0.0, []) == "undecided"


def test_contradiction_is_corrected_for_the_number_of_contexts() -> None:
    """A difference of -2.6 +- 2.48 contradicts a claim alone, but not as one of thirty contexts."""
    against = comparison_of(-2.6)
    assert joint_answer("higher", 0.0, [against]) == "contradicted"
    assert joint_answer("higher", 0.0, [against, *[comparison_of(0.1)] * 29]) == "undecided"


def test_number_of_seeds_that_would_decide() -> None:
    def seeds_needed(test: str, mean: float, margin: float, seeds: int) -> int | None:
        return needed_to_decide(test, comparison_of(mean, 1.0, seeds), margin).seeds

    assert seeds_needed("higher", 0.5, 0.0, 3) == 34
    assert seeds_needed("higher", 0.0, 0.0, 3) is None
    assert seeds_needed("within", 0.5, 1.0, 4) == 34
