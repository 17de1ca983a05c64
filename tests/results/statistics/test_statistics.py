"""Intervals and tests compared with scipy, statsmodels and direct counts; simulations are in test_simulations.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from sdsbench.results.statistics import contrasts, correction, intervals, pooled_effect, variances


def test_t_interval_equals_scipys() -> None:
    values = [61.2, 62.9, 60.4, 63.3]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    interval = intervals.t_interval(values)
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert interval.n == 4 and interval.half_width == pytest.approx(expected[1] - np.mean(values))


def test_one_seed_has_no_interval() -> None:
    interval = intervals.t_interval([3.0])
    assert interval.mean == 3.0 and math.isnan(interval.low) and math.isnan(interval.high)
    with pytest.raises(ValueError, match="at least one"):
        intervals.t_interval([])


def test_seeds_are_paired_by_number() -> None:
    ours, theirs = {2: 5.0, 0: 1.0, 7: 9.0}, {0: 0.0, 2: 4.5, 1: 100.0}
    comparison = contrasts.paired_seeds(ours, theirs)
    assert comparison.seeds == 2 and comparison.difference == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no common seed"):
        contrasts.paired_seeds({0: 1.0}, {1: 1.0})


def test_tests_over_seeds_equal_scipys() -> None:
    a, b = [61.0, 62.5, 60.2], [60.1, 61.9, 60.0]
    ours, theirs = dict(enumerate(a)), dict(enumerate(b))
    paired, reference = contrasts.paired_seeds(ours, theirs), stats.ttest_rel(a, b)
    assert paired.p_value == pytest.approx(reference.pvalue)
    assert (paired.low, paired.high) == pytest.approx(tuple(reference.confidence_interval()))
    welch = contrasts.unpaired_seeds(ours, {7: 60.1, 8: 61.9, 9: 60.0, 10: 58.0})
    reference = stats.ttest_ind(a, [60.1, 61.9, 60.0, 58.0], equal_var=False)
    assert welch.p_value == pytest.approx(reference.pvalue)
    assert (welch.low, welch.high) == pytest.approx(tuple(reference.confidence_interval()))
    lone = contrasts.paired_seeds({0: 1.0}, {0: 2.0})
    assert math.isnan(lone.p_value) and (lone.seeds, lone.difference) == (1, -1.0)
    assert math.isnan(contrasts.unpaired_seeds({0: 1.0}, {0: 2.0, 1: 2.1}).p_value)


def test_pooled_variance_of_two_groups_gives_students_test() -> None:
    a, b = [61.0, 62.5, 60.2], [60.1, 61.9, 60.0]
    pooled = contrasts.pooled_variance([a, b, [1.0]])
    found = contrasts.unpaired_seeds(dict(enumerate(a)), dict(enumerate(b)), pooled=pooled)
    assert found.p_value == pytest.approx(stats.ttest_ind(a, b).pvalue)
    assert pooled is not None and pooled[1] == 4
    assert contrasts.pooled_variance([[1.0], [2.0]]) is None


@pytest.mark.parametrize("gap", [0.0, 3.0])
def test_equal_differences_give_no_p_value_and_no_interval(gap: float) -> None:
    """Where every seed differs by the same amount, the variance cannot be estimated: no p-value, no interval."""
    ours, theirs = {seed: 50.0 + seed + gap for seed in range(3)}, {seed: 50.0 + seed for seed in range(3)}
    answers = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for found in (
        contrasts.paired_seeds(ours, theirs),
        contrasts.paired_crossed(answers, answers),
        contrasts.unpaired_seeds({0: 50.0 + gap, 1: 50.0 + gap}, {0: 50.0, 1: 50.0}),
        contrasts.unpaired_crossed(np.full((3, 4), 1.0), np.zeros((3, 4))),
    ):
        assert math.isnan(found.p_value) and math.isnan(found.low) and math.isnan(found.high), found.test


def test_crossed_error_has_a_part_of_seeds_and_a_part_of_questions() -> None:
    """Nearly equal seeds do not narrow the part of questions; noise between seeds widens the interval."""
    rng = np.random.default_rng(0)
    d_q = rng.normal(0.02, 0.5, 400)
    nearly = np.tile(d_q, (4, 1)) + 1e-6 * np.arange(4)[:, None]
    same = contrasts.paired_crossed(nearly, np.zeros((4, 400)))
    assert (same.high - same.low) / 2 == pytest.approx(1.966 * d_q.std(ddof=1) / 20, rel=0.01)
    noisy = np.tile(d_q, (4, 1)) + np.array([0.3, -0.3, 0.2, -0.2])[:, None]
    wide = contrasts.paired_crossed(noisy, np.zeros((4, 400)))
    assert wide.high - wide.low > 3 * (same.high - same.low)
    for test in (contrasts.paired_crossed, contrasts.unpaired_crossed):
        with pytest.raises(ValueError, match=r"2 x 2|two seeds"):
            test(np.zeros((1, 5)), np.zeros((1, 5)))


def test_tables_of_other_shapes_are_refused() -> None:
    for theirs in (np.zeros((3, 5)), np.zeros((4, 4)), np.zeros(4)):
        with pytest.raises(ValueError, match="two equal tables"):
            contrasts.paired_crossed(np.zeros((3, 4)), theirs)
    for ours, theirs in (((3, 4), (3, 5)), ((3, 4), (4,)), ((4,), (3, 4))):
        with pytest.raises(ValueError, match="the same questions"):
            contrasts.unpaired_crossed(np.zeros(ours), np.zeros(theirs))


def test_crossed_variances_equal_a_balanced_analysis_of_variance() -> None:
    """Mean squares of a two-way layout give the same parts: error of the mean = (MS_s + MS_q - MS_rest) / (S Q)."""
    rng = np.random.default_rng(1)
    d_sq = rng.normal(0, 1, (4, 30)) + rng.normal(0, 1, (4, 1)) + rng.normal(0, 1, 30)
    found = contrasts.paired_crossed(d_sq, np.zeros((4, 30)))
    seeds, questions = d_sq.mean(axis=1), d_sq.mean(axis=0)
    rest = d_sq - seeds[:, None] - questions + d_sq.mean()
    ms_s, ms_q, ms_rest = 30 * seeds.var(ddof=1), 4 * questions.var(ddof=1), (rest**2).sum() / (3 * 29)
    assert found.variances is not None
    assert found.variances.total == pytest.approx((ms_s + ms_q - ms_rest) / (4 * 30))


def test_equal_seed_means_give_no_test_however_much_questions_vary() -> None:
    """Every seed has 28 of 40 answers right, on other questions each time: how far seeds spread is not known."""
    ours = np.array([np.roll([1.0] * 28 + [0.0] * 12, shift) for shift in (0, 1, 2)])
    same_questions = np.tile(ours[:1], (3, 1))
    for answers in (ours, same_questions):
        for test in (contrasts.paired_crossed, contrasts.unpaired_crossed):
            found = test(answers, np.zeros((3, 40)))
            assert found.difference == pytest.approx(0.7) and found.variances is not None
            assert found.variances.of_questions > 0 and not found.variances.testable
            assert math.isnan(found.p_value) and math.isnan(found.low) and math.isnan(found.variances.detectable())
            assert variances.needed(found.variances, 0.7, 3, 40) == variances.Needed()


def test_small_effects_leave_a_residual_error() -> None:
    """Where seeds nearly agree by chance and questions cancel, the residual alone still gives an interval."""
    ours = np.array([[1.0, 0.0] * 20 + [1.0, 1.0], [0.0, 1.0] * 20 + [1.0, 0.0]])
    found = contrasts.paired_crossed(ours, np.zeros((2, 42)))
    assert found.low < found.difference < found.high and found.high - found.low > 0.1


def test_p_value_and_interval_agree() -> None:
    """p is below 5 % exactly where the 95 % interval excludes 0."""
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(60):
        ours, theirs = rng.random((3, 40)) < 0.62, rng.random((3, 40)) < 0.5
        for test in (contrasts.paired_crossed, contrasts.unpaired_crossed):
            found = test(ours, theirs)
            seen.add(found.p_value < 0.05)
            assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
    assert seen == {True, False}


@pytest.mark.parametrize("seed", range(5))
def test_holm_adjustment_equals_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).random(7).tolist()
    assert correction.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_adjustment_skips_missing_tests() -> None:
    adjusted = correction.holm([0.01, float("nan"), 0.04])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)
    assert correction.holm([]) == []


def paired_variances(deviation: float, seeds: int) -> variances.Variances:
    return variances.Variances(deviation**2 / seeds, seeds - 1)


def test_power_and_needed_seeds_equal_statsmodels() -> None:
    assert paired_variances(1.0, 34).power(0.5) == pytest.approx(TTestPower().power(0.5, 34, 0.05), abs=1e-9)
    assert variances.needed(paired_variances(1.0, 3), 0.5, 3, 0) == variances.Needed(seeds=34)
    detectable = paired_variances(1.0, 5).detectable()
    assert paired_variances(1.0, 5).power(detectable) == pytest.approx(0.8, abs=1e-6)


def test_needed_seeds_are_unknown_for_tiny_and_for_certain_differences() -> None:
    assert variances.needed(paired_variances(1.0, 3), 0.0, 3, 0) == variances.Needed()
    assert variances.needed(paired_variances(1.0, 3), 1e-6, 3, 0) == variances.Needed()
    assert variances.needed(variances.Variances(0.0, 2), 1.0, 3, 0) == variances.Needed()
    assert variances.needed(paired_variances(1.0, 1 + 1), 5.0, 1, 0) == variances.Needed()


def test_the_p_value_is_the_level_whose_interval_ends_at_zero() -> None:
    parts = variances.Variances(1.0, 2, 4.0, 199)
    assert parts.quantile(parts.p_value(3.0)) * parts.error == pytest.approx(3.0)


def test_a_difference_without_variance_is_found_for_certain() -> None:
    certain = variances.Variances(0.0, 2)
    assert (certain.power(1.0), certain.power(0.0)) == (1.0, 0.05) and math.isnan(certain.detectable())
    assert paired_variances(1.0, 3).power(1000.0) == pytest.approx(1.0)


def test_power_is_a_probability_where_scipys_lower_tail_is_nan() -> None:
    """The non-central t's lower tail is NaN at some shifts, where it is far below 1e-100."""
    variances_of_four = variances.Variances(1.0, 3)
    critical = variances_of_four.quantile(0.05)
    assert math.isnan(stats.nct.cdf(-critical, 3, 38.0)), "another version of scipy: choose another shift"
    assert variances_of_four.power(38.0) == pytest.approx(1.0)


def test_needed_questions_follow_from_the_variance_of_questions() -> None:
    """The part of the variance that is due to questions does not fall with the number of seeds."""
    parts = variances.Variances(1.0, 2, 4.0, 199)
    found = variances.needed(parts, 2.0, 3, 200)
    assert found.seeds is None and found.questions == math.ceil(200 * 4.0 / (2.0 / 2.8016) ** 2)
    assert variances.needed(parts, 8.0, 3, 200).seeds is not None


def test_pooled_effect_is_a_random_effects_mean() -> None:
    tight = [contrasts.concluded("", mean, paired_variances(1.0, 10), 10) for mean in (1.0, 1.0, 1.0)]
    effect = pooled_effect.pooled_effect(tight)
    assert effect is not None and effect.mean == pytest.approx(1.0) and effect.between == 0 == effect.share
    half = stats.t.isf(0.025, 2) * math.sqrt(0.1 / 3)  # equal effects by chance are no certainty
    assert (effect.low, effect.high) == pytest.approx((1.0 - half, 1.0 + half))
    apart = pooled_effect.pooled_effect(
        [contrasts.concluded("", mean, paired_variances(1.0, 10), 10) for mean in (-5.0, 1.0, 7.0)]
    )
    assert apart is not None and apart.between == pytest.approx(6.0, abs=0.1) and apart.share > 0.9
    assert apart.low < -5 and apart.high > 7
    assert pooled_effect.pooled_effect(tight[:1]) is None


@pytest.mark.parametrize("means", [(0.3, 2.1, 1.2, 4.0), (1.0, 3.5)])
def test_the_pooled_effect_is_statsmodels(means: tuple[float, ...]) -> None:
    """Contexts of unequal variance. Of two errors of the mean the larger one: Hartung and Knapp's, or the usual."""
    deviations = (1.0, 2.0, 0.8, 3.0)[: len(means)]
    known = [contrasts.concluded("", m, paired_variances(d, 10), 10) for m, d in zip(means, deviations, strict=True)]
    effect = pooled_effect.pooled_effect(known)
    reference = combine_effects(np.array(means), np.array(deviations) ** 2 / 10, method_re="dl", use_t=True)
    assert effect is not None
    error = max(reference.sd_eff_w_re, reference.sd_eff_w_re_hksj)
    half = stats.t.isf(0.025, len(means) - 1) * error
    assert (effect.mean, effect.low) == pytest.approx((reference.mean_effect_re, reference.mean_effect_re - half))
    assert effect.high - effect.mean == pytest.approx(half)
    assert (effect.between**2, effect.share) == pytest.approx((reference.tau2, reference.i2))
    untested = [contrasts.paired_seeds({0: 1.0}, {0: 2.0}), contrasts.paired_seeds({0: 1.0, 1: 1.0}, {0: 9.0, 1: 9.0})]
    assert pooled_effect.pooled_effect([*known, *untested]) == effect, "contexts without a test are left out"
