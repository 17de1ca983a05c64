"""From a confidence interval to an answer: reproduced, contradicted, undecided, or inadmissible evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from sdsbench.results.statistics.contrasts import Comparison
from sdsbench.results.statistics.variances import Needed, needed

Answer = Literal["reproduced", "contradicted", "undecided", "inadmissible"]
LEVEL = 0.05


def decide(test: str, low: float, high: float, margin: float) -> Answer:
    """The answer that the interval [low, high] gives; claims.yaml explains the tests at its top."""
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


def answer_at(test: str, comparison: Comparison, margin: float, confidence: float) -> Answer:
    """The answer of a comparison at the given confidence (0 to 1); undecided if nothing could be tested."""
    if comparison.variances is None:
        return decide(test, comparison.low, comparison.high, margin)
    half = comparison.variances.half_width(confidence)
    return decide(test, comparison.difference - half, comparison.difference + half, margin)


def needed_to_decide(test: str, comparison: Comparison, margin: float, confidence: float = 1 - LEVEL) -> Needed:
    """The total seeds per side, or questions, that decide with power 0.8 if the difference stays the same."""
    if comparison.variances is None:
        return Needed()
    mean = comparison.difference
    distance = {"higher": mean, "not_lower": mean + margin, "below": mean - margin}.get(test, margin - abs(mean))
    return needed(comparison.variances, distance, comparison.seeds, comparison.questions, alpha=1 - confidence)


def joint_answer(test: str, margin: float, comparisons: Sequence[Comparison], pairs: Sequence[int] = ()) -> Answer:
    """The joint answer to a claim about several contexts, with a controlled error rate.

    Reproduced: every context is, each at 95 % (intersection-union test). Contradicted: at least one context is, at a
    level divided by the number of contexts (Bonferroni), so that equal methods are contradicted in at most 5 % of
    studies however many contexts there are. `pairs[i]`: number of method pairs that comparison i was selected from.
    """
    if not comparisons:
        return "undecided"
    chosen = pairs or [1] * len(comparisons)
    alone = [answer_at(test, c, margin, 1 - LEVEL / k) for c, k in zip(comparisons, chosen, strict=True)]
    if set(alone) == {"reproduced"}:
        return "reproduced"
    jointly = (
        answer_at(test, c, margin, 1 - LEVEL / k / len(comparisons)) for c, k in zip(comparisons, chosen, strict=True)
    )
    return "contradicted" if "contradicted" in jointly else "undecided"
