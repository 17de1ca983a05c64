"""A comparison's budget: the effort that it affords, equal for all methods, and refusals that name a larger budget."""

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
def test_largest_affordable_effort_is_chosen(budget: float) -> None:
    effort = afford(budget, RUN, workers=2)
    assert total_seconds(effort, RUN, 2) <= budget
    larger = [other for other in EFFORTS if other.runs > effort.runs]
    assert all(total_seconds(other, RUN, 2) > budget for other in larger)


def test_cost_includes_the_largest_extension_of_the_grid() -> None:
    """Two methods, 3 rates that may become 5, one tuning seed and 3 fresh seeds make 8 runs each."""
    assert total_seconds(EFFORTS[0], RUN, workers=1) == 8 * (60 + 90)


def test_too_small_budget_is_refused_with_a_sufficient_one() -> None:
    with pytest.raises(Refused, match=r"Give at least 20m") as refused:
        afford(600, RUN, workers=1)
    assert "8 runs each" in str(refused.value)
    assert afford(20 * 60, RUN, workers=1) == EFFORTS[0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h", 14400), ("90m", 5400), ("1.5h", 5400), ("2d", 172800), ("45s", 45)]
)
def test_budgets_are_read_as_seconds(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["4", "h", "0h", "-1h", "4 hours", "", "9" * 400 + "h", "1" + "0" * 305 + "d"], ids=lambda text: text[:9]
)
def test_other_budget_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="30m, 4h or 2d"):
        budget_seconds(text)


def test_all_methods_share_one_grid_with_two_rates_per_decade() -> None:
    grid = learning_rates({"lora": 2e-4, "full_ft": 2e-5}, 5)
    assert grid == [6.3e-6, 2e-5, 6.3e-5, 2e-4, 6.3e-4]
    assert learning_rates({"lora": 2e-4, "full_ft": 2e-5}, 3)[1] == grid[2], (
        "the middle rate, which is run first, is in every grid"
    )


def test_detectable_difference_is_found_in_four_studies_of_five() -> None:
    """A t-test over seeds, with a deviation of 3 points between seeds and the sampling error of 200 questions."""
    effort, generator = EFFORTS[5], np.random.default_rng(0)
    gap = detectable(effort, 200, 3.0)
    spread = math.hypot(3.0, 100 * math.sqrt(0.25 / 200))
    ours = generator.normal(gap, spread, (4000, effort.seeds))
    theirs = generator.normal(0.0, spread, (4000, effort.seeds))
    found = stats.ttest_ind(ours, theirs, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
