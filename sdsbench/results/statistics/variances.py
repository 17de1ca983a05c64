"""The variance of a mean difference, split into seeds and questions; intervals, p-values and power follow from it.

Every test of this package yields two variances, one that decreases with more seeds and one that decreases with more
questions, each with its degrees of freedom. Interval, p-value, smallest detectable effect and required number of seeds
are all computed from these two, so that they are consistent with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, special, stats

LEAST_LOG_P = -12.0  # log10 of p: smaller p-values are not distinguished
POWER = 0.8  # the usual power of study planning
MOST_SEEDS = 1000  # limit of the search for the required number of seeds


@dataclass(frozen=True)
class Variances:
    """The variance of a mean difference: `of_seeds` decreases with the number of seeds, `of_questions` does not."""

    of_seeds: float
    seed_freedom: float
    of_questions: float = 0.0
    question_freedom: float = math.inf

    @property
    def total(self) -> float:
        return self.of_seeds + self.of_questions

    @property
    def testable(self) -> bool:
        """Whether seeds differ at all. Where they do not, their spread is unknown, and nothing can be tested."""
        return self.of_seeds > 0

    @property
    def error(self) -> float:
        """The standard error of the mean difference."""
        return math.sqrt(self.total)

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the total variance."""
        if self.total == 0:
            return self.seed_freedom
        parts = self.of_seeds**2 / self.seed_freedom + self.of_questions**2 / self.question_freedom
        return self.total**2 / parts

    def quantile(self, p: float) -> float:
        """The critical value of a two-sided test at level `p`, in standard errors.

        The t quantiles of the two degrees of freedom, weighted by the two variances (Cochran and Cox). In simulations
        with three seeds, 95 % intervals by Satterthwaite covered 92.7 %, these 94 to 95.5 %. NaN without a test.
        """
        if not self.testable:
            return math.nan
        parts = ((self.of_seeds, self.seed_freedom), (self.of_questions, self.question_freedom))
        return -sum(part * float(special.stdtrit(freedom, p / 2)) for part, freedom in parts if part) / self.total

    def p_value(self, difference: float) -> float:
        """Two-sided p-value of a mean difference; NaN if nothing can be tested."""
        if not self.testable:
            return math.nan
        distance = abs(difference) / self.error
        if self.of_questions == 0:
            return max(2 * float(special.stdtr(self.seed_freedom, -distance)), 10**LEAST_LOG_P)
        if self.quantile(10**LEAST_LOG_P) <= distance:
            return 10**LEAST_LOG_P
        return float(10 ** optimize.brentq(lambda p: self.quantile(10**p) - distance, LEAST_LOG_P, 0.0))

    def half_width(self, confidence: float = 0.95) -> float:
        """Half-width of the confidence interval; NaN if nothing can be tested."""
        return self.quantile(1 - confidence) * self.error

    def with_seeds(self, seeds: int, planned: int) -> Variances:
        """The variances expected with `planned` seeds per side, given these for `seeds` per side."""
        ratio = (planned - 1) / (seeds - 1)
        return Variances(
            self.of_seeds * seeds / planned, self.seed_freedom * ratio, self.of_questions, self.question_freedom
        )

    def power(self, difference: float, alpha: float = 0.05) -> float:
        """Probability that the two-sided test at `alpha` finds a true mean `difference`."""
        if self.total == 0:
            return 1.0 if difference else alpha
        critical, shift, freedom = self.quantile(alpha), abs(difference) / self.error, self.freedom
        if freedom > 1e6:
            return float(stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift))
        lower = float(stats.nct.cdf(-critical, freedom, shift))
        return float(stats.nct.sf(critical, freedom, shift)) + (0.0 if math.isnan(lower) else lower)

    def detectable(self) -> float:
        """The smallest true mean difference found with power 0.8; NaN if nothing can be tested."""
        if not self.testable:
            return math.nan
        low, high = 0.0, 1000.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.power(middle * self.error) < POWER else (low, middle)
        return high * self.error


@dataclass(frozen=True)
class Needed:
    """What a study needs to find a difference: total seeds per side, or questions if no number of seeds suffices."""

    seeds: int | None = None
    questions: int | None = None


def needed(variances: Variances, difference: float, seeds: int, questions: int, alpha: float = 0.05) -> Needed:
    """The seeds per side with which the test finds a true mean `difference` with power 0.8.

    If the variance over questions alone prevents that, the least number of questions instead; neither if more than 1000
    seeds would be needed. `variances` was estimated from `seeds` per side and `questions`.
    """
    if seeds < 2 or difference == 0 or not variances.testable:
        return Needed()

    def reached(planned: int) -> bool:
        return variances.with_seeds(seeds, planned).power(difference, alpha) >= POWER

    if not reached(MOST_SEEDS):
        normal = stats.norm.isf(alpha / 2) + stats.norm.isf(1 - POWER)
        limit = abs(difference) / normal  # the largest standard error at which it is found
        enough = math.ceil(questions * variances.of_questions / limit**2)
        return Needed(questions=enough) if enough > questions else Needed()
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return Needed(seeds=low)
