"""Turning a time budget into learning rates, tuning seeds and test seeds, the same number for every method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sdsbench.core.clock import clock, not_a_time, seconds_of
from sdsbench.core.errors import ConfigError, Refused
from sdsbench.core.texts import number_of
from sdsbench.results.statistics.variances import Variances

EXTEND = 2
"""Maximum number of rates added at an end of the grid while the best rate is there; the budget includes them."""
FACTOR = math.sqrt(10)
"""Factor between neighbouring learning rates: two values per decade."""


@dataclass(frozen=True)
class Effort:
    """The runs of each method: numbers of learning rates, tuning seeds and fresh test seeds."""

    rates: int
    tuning_seeds: int
    seeds: int

    @property
    def runs(self) -> int:
        """Maximum number of runs of one method, grid extensions included."""
        return (self.rates + EXTEND) * self.tuning_seeds + self.seeds

    def __str__(self) -> str:
        tuning = f"{self.tuning_seeds} tuning seed{'s' * (self.tuning_seeds > 1)}"
        return f"{self.rates} rates x {tuning}, then {self.seeds} fresh seeds"


EFFORTS = (
    Effort(3, 1, 3), Effort(3, 1, 5), Effort(3, 2, 5), Effort(5, 2, 5), Effort(5, 2, 8), Effort(5, 3, 8),
    Effort(5, 3, 12), Effort(5, 3, 20), Effort(5, 5, 30), Effort(5, 5, 60),
)  # fmt: skip
"""The affordable efforts in order of cost: from the least that can decide (three fresh seeds) to small differences.

The number of rates is odd, so that every grid contains the middle rate, which is run first to measure the time."""


def budget_seconds(text: str) -> float:
    """Parse `4h`, `90m`, `1.5h` or `2d` into seconds. Raises ConfigError for other texts."""
    seconds = seconds_of(text)
    if seconds is None:
        raise ConfigError([not_a_time("--budget", text)])
    return seconds


def total_seconds(effort: Effort, run_seconds: Mapping[str, float], workers: int) -> float:
    """Seconds of a whole comparison with `workers` runs at a time; `run_seconds`: method -> seconds of one run."""
    return effort.runs * sum(run_seconds.values()) / workers


def afford(budget: float, run_seconds: Mapping[str, float], workers: int) -> Effort:
    """The largest effort that fits into `budget` seconds; `run_seconds`: method -> seconds of one run.

    Raises Refused if not even the smallest fits; the message says which budget would.
    """
    fitting = [effort for effort in EFFORTS if total_seconds(effort, run_seconds, workers) <= budget]
    if fitting:
        return fitting[-1]
    least = total_seconds(EFFORTS[0], run_seconds, workers)
    raise Refused(
        f"--budget: {clock(budget)} is not enough for {len(run_seconds)} methods ({EFFORTS[0]}: {EFFORTS[0].runs} runs "
        f"each, about {clock(least)} with {number_of(workers, 'worker')}). Give at least {math.ceil(least / 60)}m, or "
        "fewer methods, a smaller train.max_steps or eval.limit."
    )


def learning_rates(centres: Mapping[str, float], count: int) -> list[float]:
    """`count` rates, two per decade, centred at the geometric mean of the methods' default rates; one grid for all."""
    middle = math.exp(sum(map(math.log, centres.values())) / len(centres))
    return [float(f"{middle * FACTOR ** (step - (count - 1) / 2):.2g}") for step in range(count)]


def detectable(effort: Effort, questions: int, seed_deviation: float) -> float:
    """The smallest true difference of two methods, in points (of 100), that the planned test finds with 80 % power.

    Assumes a standard deviation between seeds of `seed_deviation` points and independent answers to `questions`
    questions, half of them right. It is larger if methods differ on the same questions for every seed.
    """
    of_seeds = 2 * seed_deviation**2 / effort.seeds
    of_questions = 2 * 0.25 * 100**2 / (questions * effort.seeds)
    return Variances(of_seeds + of_questions, 2 * (effort.seeds - 1)).detectable()
