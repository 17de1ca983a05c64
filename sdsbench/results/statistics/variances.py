"""The variance of a mean difference, by what it falls with, and what follows from it: intervals, p, power.

Every test of this package ends in the same two numbers: the part of the variance that falls with more seeds and the
part that falls with more questions, each with its degrees of freedom. The interval, the p-value, the smallest effect
that could have been found and the number of seeds that would find one all come from them, so that none of these can
disagree with another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, special, stats

LEAST_LOG_P = -12.0  # smaller p-values are all shown as this one
POWER = 0.8  # what studies are planned with
MOST_SEEDS = 1000  # more than anybody trains


@dataclass(frozen=True)
class Variances:
    """The variance of a mean difference: `of_seeds` falls with the number of seeds, `of_questions` does not."""

    of_seeds: float
    seed_freedom: float
    of_questions: float = 0.0
    question_freedom: float = math.inf

    @property
    def total(self) -> float:
        return self.of_seeds + self.of_questions

    @property
    def error(self) -> float:
        """The standard error of the mean difference."""
        return math.sqrt(self.total)

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the whole."""
        if self.total == 0:
            return self.seed_freedom
        parts = self.of_seeds**2 / self.seed_freedom + self.of_questions**2 / self.question_freedom
        return self.total**2 / parts

    def quantile(self, p: float) -> float:
        """How many standard errors a two-sided test at level `p` asks for.

        The quantiles of the two degrees of freedom weighed by the two variances (Cochran and Cox): with three seeds
        Satterthwaite's covered 92.7 % in simulation, this 94 to 95.5 %.
        """
        if self.total == 0:
            return math.nan
        parts = ((self.of_seeds, self.seed_freedom), (self.of_questions, self.question_freedom))
        return -sum(part * float(special.stdtrit(freedom, p / 2)) for part, freedom in parts if part) / self.total

    def p_value(self, difference: float) -> float:
        """Two-sided p of a mean difference; NaN where no variance was seen, as nothing can be tested then."""
        if self.total == 0:
            return math.nan
        distance = abs(difference) / self.error
        if self.of_questions == 0:
            return max(2 * float(special.stdtr(self.seed_freedom, -distance)), 10**LEAST_LOG_P)
        if self.quantile(10**LEAST_LOG_P) <= distance:
            return 10**LEAST_LOG_P
        return float(10 ** optimize.brentq(lambda p: self.quantile(10**p) - distance, LEAST_LOG_P, 0.0))

    def half_width(self, confidence: float = 0.95) -> float:
        """Half of the interval; NaN where no variance was seen."""
        return self.quantile(1 - confidence) * self.error

    def with_seeds(self, seeds: int, planned: int) -> Variances:
        """What the same study would have with `planned` seeds a side where `seeds` are there now."""
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
        """The smallest true mean difference that the test finds with a power of 0.8; NaN where no variance was seen."""
        if self.total == 0:
            return math.nan
        low, high = 0.0, 1000.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.power(middle * self.error) < POWER else (low, middle)
        return high * self.error


@dataclass(frozen=True)
class Needed:
    """What a further study needs to find a difference: seeds a side in all, or questions where no seeds would do."""

    seeds: int | None = None
    questions: int | None = None


def needed(variances: Variances, difference: float, seeds: int, questions: int, alpha: float = 0.05) -> Needed:
    """Seeds a side with which the test finds a true mean `difference` with a power of 0.8.

    Or the least number of questions where the questions alone keep it from being found; neither where more than 1000
    seeds would be needed.

    `seeds` and `questions` are those that `variances` was estimated from.
    """
    if seeds < 2 or difference == 0 or variances.total == 0:
        return Needed()

    def reached(planned: int) -> bool:
        return variances.with_seeds(seeds, planned).power(difference, alpha) >= POWER

    if not reached(MOST_SEEDS):
        normal = stats.norm.isf(alpha / 2) + stats.norm.isf(1 - POWER)
        limit = abs(difference) / normal  # the largest standard error with which it is found
        enough = math.ceil(questions * variances.of_questions / limit**2)
        return Needed(questions=enough) if enough > questions else Needed()
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return Needed(seeds=low)
