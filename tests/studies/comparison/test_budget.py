"""What a budget buys: never more than was given, equal for all methods; and a refusal that says what to give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sdsbench.core.errors import ConfigError, Refused
from sdsbench.studies.comparison.budget import (
    EFFORTS,
    afford,
    budget_seconds,
    detectable,
    learning_rates,
    total_seconds,
)

RUN = {"lora": 60.0, "dora": 90.0}


@pytest.mark.parametrize("budget", [3600, 4 * 3600, 7.5 * 3600, 24 * 3600])
def test_the_most_that_fits_is_bought(budget: float) -> None:
    effort = afford(budget, RUN, workers=2)
    assert total_seconds(effort, RUN, 2) <= budget
    dearer = [other for other in EFFORTS if other.runs > effort.runs]
    assert all(total_seconds(other, RUN, 2) > budget for other in dearer)


def test_a_grid_that_grows_at_one_end_as_far_as_it_may_is_paid_for() -> None:
    """Two methods, 3 rates that may become 5, one tuning seed, 3 fresh seeds: 8 runs each."""
    assert total_seconds(EFFORTS[0], RUN, workers=1) == 8 * (60 + 90)


def test_a_budget_for_nothing_is_refused_with_one_that_is_enough() -> None:
    with pytest.raises(Refused, match=r"Give at least 20m") as refused:
        afford(600, RUN, workers=1)
    assert "8 runs each" in str(refused.value)
    assert afford(20 * 60, RUN, workers=1) == EFFORTS[0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h", 14400), ("90m", 5400), ("1.5h", 5400), ("2d", 172800), ("45s", 45)]
)
def test_times(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["4", "h", "0h", "-1h", "4 hours", "", "9" * 400 + "h", "1" + "0" * 305 + "d"], ids=lambda text: text[:9]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="30m, 4h or 2d"):
        budget_seconds(text)


def test_one_grid_for_all_methods_two_rates_a_decade() -> None:
    grid = learning_rates({"lora": 2e-4, "full_ft": 2e-5}, 5)
    assert grid == [6.3e-6, 2e-5, 6.3e-5, 2e-4, 6.3e-4]
    assert learning_rates({"lora": 2e-4, "full_ft": 2e-5}, 3)[1] == grid[2], "the first run is of every grid"


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    """Seeds that spread by 3 points and 200 questions, nine equal-variance draws of a t-test over seeds."""
    effort, generator = EFFORTS[5], np.random.default_rng(0)
    gap = detectable(effort, 200, 3.0)
    spread = math.hypot(3.0, 100 * math.sqrt(0.25 / 200))
    ours = generator.normal(gap, spread, (4000, effort.seeds))
    theirs = generator.normal(0.0, spread, (4000, effort.seeds))
    found = stats.ttest_ind(ours, theirs, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
