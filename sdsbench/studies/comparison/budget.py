"""What a budget of time buys: learning rates, tuning seeds and fresh seeds, the same for every method."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sdsbench.core.clock import clock
from sdsbench.core.errors import ConfigError, Problem, Refused
from sdsbench.results.statistics.variances import Variances

EXTEND = 2
"""How far a grid may grow at the end where the best rate lies; a budget pays for all of it."""
FACTOR = math.sqrt(10)
"""Between neighbouring learning rates: two values a decade."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Effort:
    """How much is done for each method."""

    rates: int
    tuning_seeds: int
    seeds: int

    @property
    def runs(self) -> int:
        """Runs of one method, where its grid grows as far as it may."""
        return (self.rates + EXTEND) * self.tuning_seeds + self.seeds

    def __str__(self) -> str:
        tuning = f"{self.tuning_seeds} tuning seed{'s' * (self.tuning_seeds > 1)}"
        return f"{self.rates} rates x {tuning}, then {self.seeds} fresh seeds"


EFFORTS = (
    Effort(3, 1, 3), Effort(3, 1, 5), Effort(3, 2, 5), Effort(5, 2, 5), Effort(5, 2, 8), Effort(5, 3, 8),
    Effort(5, 3, 12), Effort(5, 3, 20), Effort(5, 5, 30), Effort(5, 5, 60),
)  # fmt: skip
"""From the least that decides anything (three fresh seeds) to what finds small differences; each costs more.

The number of rates is odd, so that the middle one, which is run first to see what a run takes, is in every grid."""


def budget_seconds(text: str) -> float:
    """`4h`, `90m`, `1.5h` or `2d` in seconds. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError([Problem("--budget", text[:40], "a time above 0 such as 30m, 4h or 2d")])
    return seconds


def total_seconds(effort: Effort, run_seconds: Mapping[str, float], workers: int) -> float:
    """Time of a whole comparison: every run of every method, over `workers` at once."""
    return effort.runs * sum(run_seconds.values()) / workers


def afford(budget: float, run_seconds: Mapping[str, float], workers: int) -> Effort:
    """The most that fits into `budget` seconds, where one run of each method takes `run_seconds`.

    Raises Refused where the least does not fit; the message says what would.
    """
    fitting = [effort for effort in EFFORTS if total_seconds(effort, run_seconds, workers) <= budget]
    if fitting:
        return fitting[-1]
    least = total_seconds(EFFORTS[0], run_seconds, workers)
    raise Refused(
        f"--budget: {clock(budget)} is not enough for {len(run_seconds)} methods ({EFFORTS[0]}: {EFFORTS[0].runs} runs "
        f"each, about {clock(least)} with {workers} worker(s)). Give at least {math.ceil(least / 60)}m, or fewer "
        "methods, a smaller train.max_steps or eval.limit."
    )


def learning_rates(centres: Mapping[str, float], count: int) -> list[float]:
    """`count` rates, two a decade, around the geometric mean of the methods' own default rates: one grid for all."""
    middle = math.exp(sum(map(math.log, centres.values())) / len(centres))
    return [float(f"{middle * FACTOR ** (step - (count - 1) / 2):.2g}") for step in range(count)]


def detectable(effort: Effort, questions: int, seed_deviation: float) -> float:
    """The smallest true difference of two methods, in points of 100, that the planned test finds with 80 % power.

    For a standard deviation between seeds of `seed_deviation` points, and answers to `questions` questions that are
    right half of the time and independent of each other. More where methods differ on the same questions in every seed.
    """
    of_seeds = 2 * seed_deviation**2 / effort.seeds
    of_questions = 2 * 0.25 * 100**2 / (questions * effort.seeds)
    return Variances(of_seeds + of_questions, 2 * (effort.seeds - 1)).detectable()
