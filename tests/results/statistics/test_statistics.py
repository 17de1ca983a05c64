"""Intervals and tests against scipy, statsmodels, direct counts and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.power import TTestPower

from sdsbench.results import statistics as s

SCORES = st.floats(min_value=-10, max_value=10, allow_nan=False)


def test_t_interval_is_scipys() -> None:
    values = [61.2, 62.9, 60.4, 63.3]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    interval = s.t_interval(values)
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert interval.n == 4


def test_one_seed_has_no_interval() -> None:
    interval = s.t_interval([3.0])
    assert interval.mean == 3.0 and math.isnan(interval.low) and math.isnan(interval.high)
    with pytest.raises(ValueError, match="at least one"):
        s.t_interval([])


def test_seeds_are_paired_not_sorted() -> None:
    ours, theirs = {2: 5.0, 0: 1.0, 7: 9.0}, {0: 0.0, 2: 4.5, 1: 100.0}
    interval = s.paired_t_interval(ours, theirs)
    assert interval.n == 2 and interval.mean == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no common seed"):
        s.paired_t_interval({0: 1.0}, {1: 1.0})


def test_seed_test_is_scipys_paired_t() -> None:
    a, b = [61.0, 62.5, 60.2], [60.1, 61.9, 60.0]
    comparison = s.seed_test(dict(enumerate(a)), dict(enumerate(b)))
    assert comparison.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert math.isnan(s.seed_test({0: 1.0}, {0: 2.0}).p_value)


@pytest.mark.parametrize("only_ours, only_theirs", [(9, 2), (4, 4), (0, 5), (30, 12)])
def test_mcnemar_exact_is_statsmodels_and_mid_p_is_its_definition(only_ours: int, only_theirs: int) -> None:
    ours = [True] * only_ours + [False] * only_theirs + [True] * 10 + [False] * 7
    theirs = [False] * only_ours + [True] * only_theirs + [True] * 10 + [False] * 7
    exact = s.mcnemar(ours, theirs, mid_p=False).p_value
    assert exact == pytest.approx(reference_mcnemar([[10, only_ours], [only_theirs, 7]], exact=True).pvalue)
    n, k = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(math.comb(n, i) for i in range(k)) / 2**n + math.comb(n, k) / 2**n / 2
    assert s.mcnemar(ours, theirs).p_value == pytest.approx(2 * tail)
    assert s.mcnemar(ours, theirs).difference == pytest.approx((only_ours - only_theirs) / len(ours))


def test_mcnemar_without_disagreement() -> None:
    assert s.mcnemar([True, False], [True, False]).p_value == 1.0


def test_paired_bootstrap_agrees_with_the_normal_interval() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(800) < 0.6, rng.random(800) < 0.5
    d = a.astype(float) - b
    half = 1.96 * d.std(ddof=1) / np.sqrt(800)
    result = s.paired_bootstrap(a, b, seed=1)
    assert (result.low, result.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.006)
    assert result == s.paired_bootstrap(a, b, seed=1)
    assert result != s.paired_bootstrap(a, b, seed=2)


def test_hierarchical_error_has_both_parts() -> None:
    """Copies of one seed add no information on questions; noise between seeds widens the interval."""
    rng = np.random.default_rng(0)
    d_q = rng.normal(0.02, 0.5, 400)
    same = s.hierarchical_bootstrap(np.tile(d_q, (4, 1)), np.zeros((4, 400)), resamples=4000)
    assert (same.high - same.low) / 2 == pytest.approx(1.966 * d_q.std(ddof=1) / 20, rel=0.05)
    noisy = np.tile(d_q, (4, 1)) + np.array([0.3, -0.3, 0.2, -0.2])[:, None]
    wide = s.hierarchical_bootstrap(noisy, np.zeros((4, 400)))
    assert wide.high - wide.low > 3 * (same.high - same.low)
    with pytest.raises(ValueError, match="2 x 2"):
        s.hierarchical_bootstrap(np.zeros((1, 5)), np.zeros((1, 5)))


def test_equal_seed_means_are_no_certainty() -> None:
    """Two seeds whose means agree by chance, and questions that cancel: the rest alone is still an error."""
    ours = np.array([[1.0, 0.0] * 20 + [1.0], [0.0, 1.0] * 20 + [1.0]])
    result = s.hierarchical_bootstrap(ours, np.zeros((2, 41)))
    assert result.low < result.difference < result.high and result.high - result.low > 0.1
    apart = np.array([[1.0, 0.0, 1.0, 0.0] * 10, [0.0, 1.0, 0.0, 1.0] * 10])
    theirs = np.array([[0.0, 1.0, 1.0, 0.0] * 10, [1.0, 0.0, 0.0, 1.0] * 10])
    theirs[:, 0] = 0.0
    assert s.hierarchical_bootstrap(apart, theirs).p_value > 0.05


def test_intervals_cover() -> None:
    """95 % intervals cover the truth in 93 to 97 % of simulated studies."""
    rng = np.random.default_rng(11)
    truth = 0.3
    hits = {"t, 3 seeds": 0, "bootstrap, 300 questions": 0}
    studies = 2000
    for study in range(studies):
        interval = s.t_interval(rng.normal(truth, 1.0, 3))
        hits["t, 3 seeds"] += interval.low <= truth <= interval.high
        d = rng.choice([1.0, 0.0, -1.0], p=[0.4, 0.5, 0.1], size=300)
        boot = s.paired_bootstrap(d, np.zeros(300), seed=study, resamples=400)
        hits["bootstrap, 300 questions"] += boot.low <= truth <= boot.high
    for name, count in hits.items():
        assert 0.93 <= count / studies <= 0.97, f"{name}: {count / studies:.3f}"


@pytest.mark.parametrize("seeds, seed_noise", [(3, 0.0), (3, 0.03), (8, 0.02)])
def test_hierarchical_intervals_cover(seeds: int, seed_noise: float) -> None:
    """New seeds and new questions in every study: right/wrong answers of two methods with shared difficulty."""
    rng = np.random.default_rng(5)
    truth, studies, questions, hits = 0.04, 1500, 150, 0
    for study in range(studies):
        difficulty_q = rng.uniform(0.3, 0.6, questions)
        gain_q = truth + rng.choice([-0.1, 0.1], questions)
        gain_sq = gain_q[None, :] + rng.normal(0, seed_noise, (seeds, 1))
        ours = rng.random((seeds, questions)) < difficulty_q + gain_sq
        theirs = rng.random((seeds, questions)) < difficulty_q
        result = s.hierarchical_bootstrap(ours.astype(float), theirs.astype(float), seed=study, resamples=200)
        hits += result.low <= truth <= result.high
    assert 0.93 <= hits / studies <= 0.97


@settings(max_examples=50)
@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=12))
def test_holm_properties(p_values: list[float]) -> None:
    adjusted = s.holm(p_values)
    assert all(a >= p - 1e-12 and a <= 1 for a, p in zip(adjusted, p_values, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.asarray(adjusted)[order]) >= -1e-12)
    smallest = min(p_values)
    assert adjusted[p_values.index(smallest)] == pytest.approx(min(1.0, smallest * len(p_values)))


def test_holm_leaves_missing_tests_out() -> None:
    adjusted = s.holm([0.01, float("nan"), 0.04])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)
    assert s.holm([]) == []


@given(st.lists(SCORES, min_size=1, max_size=8), st.lists(SCORES, min_size=1, max_size=8))
def test_probability_of_improvement_is_the_share_of_pairs(ours: list[float], theirs: list[float]) -> None:
    direct = np.mean([(a > b) + 0.5 * (a == b) for a in ours for b in theirs])
    assert s.probability_of_improvement(ours, theirs) == pytest.approx(direct)


@given(st.lists(SCORES, min_size=4, max_size=20), SCORES)
def test_interquartile_mean_moves_with_the_values_and_ignores_an_outlier(values: list[float], shift: float) -> None:
    base = s.interquartile_mean(values)
    assert s.interquartile_mean([v + shift for v in values]) == pytest.approx(base + shift, abs=1e-9)
    largest = values.index(max(values))
    spoiled = [1e6 if i == largest else v for i, v in enumerate(values)]
    assert s.interquartile_mean(spoiled) == pytest.approx(base, abs=1e-9)


@given(st.floats(min_value=0.05, max_value=5), st.floats(min_value=0.05, max_value=5))
def test_seeds_needed_is_the_smallest_that_reaches_the_power(difference: float, deviation: float) -> None:
    seeds = s.seeds_needed(difference, deviation)
    if seeds is None:
        return
    assert s.minimum_detectable_effect(deviation, seeds) <= difference * (1 + 1e-9)
    if seeds > 2:
        assert s.minimum_detectable_effect(deviation, seeds - 1) > difference * (1 - 1e-9)


def test_power_is_statsmodels_and_simulated() -> None:
    assert s.seeds_needed(0.5, 1.0) == 34
    assert TTestPower().power(0.5, 34, 0.05) >= 0.8 > TTestPower().power(0.5, 33, 0.05)
    rng = np.random.default_rng(0)
    effect = s.minimum_detectable_effect(1.0, 5)
    found = stats.ttest_1samp(rng.normal(effect, 1.0, (4000, 5)), 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_hopeless_and_certain_differences() -> None:
    assert s.seeds_needed(0.0, 1.0) is None
    assert s.seeds_needed(1e-6, 1.0) is None
    assert s.seeds_needed(0.1, 0.0) == 2
    assert s.minimum_detectable_effect(1.0, 1) == math.inf
