"""From an interval to an answer: reproduced, contradicted or undecided."""

from __future__ import annotations

import math
from typing import Literal

from sdsbench.results.statistics import seeds_needed

Answer = Literal["reproduced", "contradicted", "undecided"]


def decide(test: str, low: float, high: float, margin: float) -> Answer:
    """The answer of a 95 % interval; see the head of claims.yaml for the tests."""
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if test == "higher":
        return "reproduced" if low > 0 else "contradicted" if high < margin or high <= 0 else "undecided"
    if test == "not_lower":
        return "reproduced" if low > -margin else "contradicted" if high < -margin else "undecided"
    if test == "below":
        return "reproduced" if high < margin else "contradicted" if low > margin else "undecided"
    inside = -margin < low and high < margin
    return "reproduced" if inside else "contradicted" if low > margin or high < -margin else "undecided"


def more_seeds(test: str, mean: float, deviation: float, margin: float, seeds: int) -> int | None:
    """Further seeds with which the same mean would decide (power 0.8); None: more than is sensible, or unknown."""
    if math.isnan(deviation):
        return None
    distance = {
        "higher": mean,
        "not_lower": mean + margin,
        "below": mean - margin,
    }.get(test, margin - abs(mean))
    needed = seeds_needed(distance, deviation)
    return None if needed is None else max(needed - seeds, 1)


def together(answers: list[Answer]) -> Answer:
    """Contradicted anywhere is contradicted; reproduced needs every context."""
    if "contradicted" in answers:
        return "contradicted"
    return "reproduced" if answers and set(answers) == {"reproduced"} else "undecided"
