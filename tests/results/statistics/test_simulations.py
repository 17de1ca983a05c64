"""Small seeded simulations of the statistical tests: coverage, errors under equal methods, power, joint claims."""

from __future__ import annotations

import numpy as np
import pytest

from sdsbench.results.claims.decide import answer_at, joint_answer
from sdsbench.results.statistics import contrasts, intervals, variances

QUESTIONS = 100


def draw_answers(
    rng: np.random.Generator, seeds: int, seed_noise: float, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """1 for right and 0 for wrong answers of two methods, (seeds, questions): shared difficulty, own seed noise."""
    difficulty_q = rng.uniform(0.3, 0.6, QUESTIONS)
    gain_q = gain + rng.choice([-0.1, 0.1], QUESTIONS)
    ours, theirs = (
        rng.random((seeds, QUESTIONS)) < p_q + rng.normal(0, seed_noise, (seeds, 1))
        for p_q in (difficulty_q + gain_q, difficulty_q)
    )
    return ours.astype(float), theirs.astype(float)


@pytest.mark.parametrize("test", [contrasts.paired_crossed, contrasts.unpaired_crossed])
@pytest.mark.parametrize("seeds, seed_noise", [(3, 0.0), (3, 0.05), (5, 0.03)])
def test_crossed_intervals_cover_the_true_difference(test, seeds: int, seed_noise: float) -> None:
    """95 % intervals cover the true difference in 92 to 98 % of studies with new seeds and new questions."""
    rng = np.random.default_rng(5)
    studies, hits = 500, 0
    for _ in range(studies):
        found = test(*draw_answers(rng, seeds, seed_noise, 0.04))
        hits += found.low <= 0.04 <= found.high
    assert 0.92 <= hits / studies <= 0.98


def test_t_intervals_cover_the_true_mean() -> None:
    rng = np.random.default_rng(11)
    found = [intervals.t_interval(rng.normal(0.3, 1.0, 3)) for _ in range(2000)]
    assert 0.93 <= np.mean([interval.low <= 0.3 <= interval.high for interval in found]) <= 0.97


@pytest.mark.parametrize("gain, seed_noise", [(0.12, 0.05), (0.2, 0.1)])
def test_recommended_seeds_find_the_difference(gain: float, seed_noise: float) -> None:
    """With the number of seeds that `needed` returns, four studies of five find a difference of the given size."""
    rng = np.random.default_rng(3)
    pilots = [contrasts.unpaired_crossed(*draw_answers(rng, 40, seed_noise, gain)).variances for _ in range(10)]
    of_seeds = float(np.mean([40 * pilot.of_seeds for pilot in pilots if pilot]))
    of_questions = float(np.mean([pilot.of_questions for pilot in pilots if pilot]))
    recommended = variances.needed(
        variances.Variances(of_seeds / 3, 4, of_questions, QUESTIONS - 1), gain, 3, QUESTIONS
    )
    assert recommended.seeds is not None and 3 <= recommended.seeds <= 60
    found = [
        contrasts.unpaired_crossed(*draw_answers(rng, recommended.seeds, seed_noise, gain)).p_value < 0.05
        for _ in range(400)
    ]
    assert 0.74 <= np.mean(found) <= 0.93


def test_questions_are_recommended_where_more_seeds_do_not_help() -> None:
    """A gain of 2 points with 100 questions: 200 seeds find it in fewer than four studies of five."""
    rng = np.random.default_rng(4)
    pilot = contrasts.unpaired_crossed(*draw_answers(rng, 60, 0.01, 0.03)).variances
    assert pilot is not None
    three = variances.Variances(60 * pilot.of_seeds / 3, 4, pilot.of_questions, QUESTIONS - 1)
    recommended = variances.needed(three, 0.02, 3, QUESTIONS)
    assert recommended.seeds is None and recommended.questions is not None and recommended.questions > QUESTIONS
    found = [contrasts.unpaired_crossed(*draw_answers(rng, 200, 0.01, 0.02)).p_value < 0.05 for _ in range(120)]
    assert np.mean(found) < 0.7


def draw_contexts(rng: np.random.Generator, count: int, truth: float, seeds: int = 3) -> list[contrasts.Comparison]:
    return [
        contrasts.paired_seeds(dict(enumerate(rng.normal(truth, 1.0, seeds))), dict.fromkeys(range(seeds), 0.0))
        for _ in range(count)
    ]


def test_claim_over_thirty_equal_contexts_is_seldom_contradicted() -> None:
    """Some context alone contradicts in over 40 % of such studies; the joint answer contradicts in at most 5 %."""
    rng = np.random.default_rng(6)
    studies = [draw_contexts(rng, 30, 0.0) for _ in range(300)]
    jointly = np.mean([joint_answer("higher", 0.0, study) == "contradicted" for study in studies])
    alone = np.mean(["contradicted" in {answer_at("higher", c, 0.0, 0.95) for c in study} for study in studies])
    assert alone > 0.4 and jointly <= 0.05


def test_claim_is_reproduced_where_it_holds_everywhere_and_contradicted_by_one_failure() -> None:
    rng = np.random.default_rng(7)
    holding = [draw_contexts(rng, 4, 20.0, 5) for _ in range(50)]
    assert {joint_answer("higher", 0.0, study) for study in holding} == {"reproduced"}
    failing = [[*study, *draw_contexts(rng, 1, -30.0, 5)] for study in holding]
    assert np.mean([joint_answer("higher", 0.0, study) == "contradicted" for study in failing]) > 0.9
