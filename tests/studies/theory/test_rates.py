"""Rates and exponents of curves with known rates, a small study from end to end, and the page's momentum tables."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.results.frames import read_all
from sdsbench.results.tables.titles import method_title
from sdsbench.studies.theory.rates import SLOWEST, asymptotic_rate, exponent, score
from sdsbench.studies.theory.study import Grid, run


def test_rate_of_a_geometric_curve_is_found_also_where_it_ends_at_rounding_level() -> None:
    steps = np.arange(201)
    assert asymptotic_rate(7 * np.exp(-0.05 * steps)) == pytest.approx(0.05)
    ends = np.maximum(7 * np.exp(-1.0 * steps), 1e-30)  # at rounding level after 47 steps
    assert asymptotic_rate(ends) == pytest.approx(1.0, rel=0.05)


def test_rate_is_that_of_the_slowest_direction() -> None:
    steps = np.arange(401)
    assert asymptotic_rate(np.exp(-0.5 * steps) + 1e-3 * np.exp(-0.01 * steps)) == pytest.approx(0.01, rel=1e-6)


def test_constant_and_diverging_curves_have_defined_rates_and_scores() -> None:
    assert asymptotic_rate(np.ones(50)) == SLOWEST
    assert np.isnan(asymptotic_rate(np.array([1.0, 2.0, np.inf])))
    assert score(np.array([1.0, 2.0, np.inf])) == np.inf
    assert score(np.exp(-0.2 * np.arange(50))) < score(np.exp(-0.1 * np.arange(50)))


def test_rate_of_a_curve_that_ends_after_one_step_is_bounded() -> None:
    assert asymptotic_rate(np.array([50.0, 1e-31, 1e-31])) == pytest.approx(np.log(1e20))


def test_interval_of_the_exponent_covers_the_true_value() -> None:
    rng = np.random.default_rng(0)
    conditions = (1.0, 10.0, 100.0)
    hits = 0
    for _ in range(200):
        rates = [[0.3 * c**-0.7 * np.exp(0.2 * rng.standard_normal()) for _ in range(6)] for c in conditions]
        interval = exponent(conditions, rates)
        hits += interval.low < 0.7 < interval.high
    assert 180 <= hits <= 198  # 95 % of 200, within three standard deviations
    rates[1][2] = float("nan")
    assert exponent(conditions, rates).n == 5


def test_rate_falls_with_the_condition_number_for_lora_and_not_for_sds_lora(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "theory --optimizer sgd --method lora,sds_lora --condition 1,100 --seeds 4 --steps 120 --rates 0.03,0.1,0.3"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    with (tmp_path / "exponents.csv").open() as file:
        p = {row["method"]: (float(row["p_low"]), float(row["p_high"])) for row in csv.DictReader(file)}
    assert p["lora"][0] > 0.5, "LoRA's rate falls with the condition number"
    assert p["sds_lora"][1] < 0.3, "SDS-LoRA's rate does not"
    assert (tmp_path / "rate_factorisation.png").read_bytes()[:4] == b"\x89PNG"
    assert "| SDS-LoRA |" in capsys.readouterr().out


def test_theory_command_reports_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--method", "lorra", "--optimizer", "adam", "--condition", "0.5"]) == 2
    message = capsys.readouterr().err
    assert "3 problems" in message and "lorra" in message and "0.5" in message


def test_sds_lora_is_worse_than_lora_only_with_adams_first_moment() -> None:
    """At one learning rate and condition number 100, its loss is above LoRA's with the moment, far below without."""
    settings = {"optimizers": ("adamw",), "conditions": (100.0,), "learning_rates": (0.03,), "steps": 300}
    last = {}
    for beta1 in (0.9, 0.0):
        grid = Grid(methods=("lora", "sds_lora"), beta1=beta1, seeds=3, tuning_seeds=1, **settings)  # type: ignore[arg-type]
        for cell in run(grid):
            last[cell.method, beta1] = float(np.median(cell.final))
    assert last["sds_lora", 0.9] > last["lora", 0.9]
    assert last["sds_lora", 0.0] < last["lora", 0.0] - 5


def test_momentum_table_of_the_page_equals_its_file() -> None:
    root = Path(__file__).parents[3]
    found = {}
    for row in csv.DictReader((root / "results/theory/momentum.csv").open()):
        key = (method_title(row["method"], None), row["refresh"], float(row["beta1"]))
        found.setdefault(key, []).append(f"{float(row['final_log10']):.1f}")
    rules = {"the authors' refreshes": "author", "refreshed at every step": "every"}
    lines = re.findall(
        r"^  \| ([A-Z][^|]*) \| (0(?:\.9)?) \| (-.*) \|$", (root / "docs/mechanism.md").read_text(), re.M
    )
    assert len(lines) == 7
    for name, beta1, numbers in lines:
        title, _, rule = name.partition(", ")
        assert found[title, rules.get(rule, ""), float(beta1)] == numbers.split(" | "), name


def test_momentum_pilot_of_the_page_equals_its_records() -> None:
    root = Path(__file__).parents[3]
    records, damaged = read_all([root / "results/mechanism/momentum.zip"])
    assert not damaged and len(records) == 60
    found: dict[tuple[str, float], dict[float, list[float]]] = {}
    for record in (one.record for one in records):
        (score,) = [score for score in record.scores if score.headline and score.stage == "trained"]
        row = found.setdefault((method_title(record.method, None), record.config["train"]["betas"][0]), {})
        row.setdefault(record.lr, []).append(100 * score.value)
    text = (root / "docs/mechanism.md").read_text()
    lines = re.findall(r"^  \| (LoRA|SDS-LoRA) \| (0(?:\.9)?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert len(lines) == 4
    for name, beta1, *numbers in lines:
        means = [np.mean(scores) for _, scores in sorted(found[name, float(beta1)].items())]
        assert [f"{mean:.1f}" for mean in means] == numbers
