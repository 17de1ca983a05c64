"""Marked methods of a column: the set that cannot be distinguished from the best, bold where it is one method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sdsbench.results.statistics.intervals import t_interval
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.contrast import contrast
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.ranking import mark
from sdsbench.results.tables.render import FORMATS
from tests.results.tables.fixtures import built, make_record, make_samples, write_run

Cells = dict[tuple[str, str], TableCell]


def cell(row: str, column: str, values: Sequence[float]) -> TableCell:
    return TableCell(row, column, "value", ours=t_interval(values), by_seed=dict(enumerate(values)))


def two_methods(column: str, p_value: float, best: str = "dora", other: str = "lora") -> Cells:
    """Two methods, three seeds each, whose Welch test has this p-value (equal variances, 4 degrees of freedom)."""
    gap = float(stats.t.isf(p_value / 2, df=4)) * math.sqrt(2 / 3)
    return {
        (best, column): cell(best, column, [50 + gap + noise for noise in (-1, 0, 1)]),
        (other, column): cell(other, column, [50.0 + noise for noise in (0, -1, 1)]),
    }


def marks(cells: Cells, better: str = "higher") -> dict[tuple[str, str], str]:
    names = dict.fromkeys(column for _, column in cells)
    columns = [Column(name, "", {}, measure="accuracy", better=better) for name in names]  # type: ignore[arg-type]
    return {key: found.mark for key, found in mark(columns, cells).items()}


@pytest.mark.parametrize(("p_value", "bold"), [(0.049, True), (0.051, False), (0.2, False), (0.49, False)])
def test_best_method_is_bold_for_p_below_five_percent(p_value: float, bold: bool) -> None:
    cells = two_methods("a", p_value)
    expected = ("best", "") if bold else ("among_best", "among_best")
    assert marks(cells) == dict(zip(cells, expected, strict=True))
    found = mark([Column("a", "", {}, measure="accuracy")], cells)["lora", "a"]
    assert found.p_value == pytest.approx(p_value), "the two methods have the requested p-value"


def test_p_values_are_adjusted_for_all_tests_of_the_table() -> None:
    """One column with p = 0.03 is bold; with two columns 0.03 becomes 0.06, and 0.02 becomes 0.04."""
    assert marks(two_methods("a", 0.03))["dora", "a"] == "best"
    assert marks(two_methods("a", 0.03) | two_methods("b", 0.03))["dora", "a"] == "among_best"
    both = marks(two_methods("a", 0.02) | two_methods("b", 0.03))
    assert (both["dora", "a"], both["dora", "b"]) == ("best", "among_best")


def test_best_method_is_tested_against_every_other() -> None:
    """A clearly worse third method is outside the set, although the second is within it."""
    cells = two_methods("a", 0.4) | {("pissa", "a"): cell("pissa", "a", [1.0, 2.0, 3.0])}
    assert marks(cells) == {("dora", "a"): "among_best", ("lora", "a"): "among_best", ("pissa", "a"): ""}


def test_direction_decides_the_best_and_without_one_nothing_is_marked() -> None:
    cells = two_methods("a", 0.01)
    assert marks(cells, "lower") == {("lora", "a"): "best", ("dora", "a"): ""}
    assert set(marks(cells, "").values()) == {""}


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_bold_below_three_seeds(seeds: int) -> None:
    """Tested by questions alone, two seeds of one method differed `significantly` in 45 of 220 pairs."""
    far = {
        (row, "a"): cell(row, "a", [base + i for i in range(seeds)]) for row, base in (("dora", 90.0), ("lora", 1.0))
    }
    assert set(marks(far).values()) == {""}
    mixed = far | {("pissa", "a"): cell("pissa", "a", [100.0, 101.0, 102.0])}
    assert set(marks(mixed).values()) == {""}


def test_method_with_too_few_seeds_stays_among_the_best() -> None:
    cells = two_methods("a", 0.001) | {("pissa", "a"): cell("pissa", "a", [1.0])}
    assert marks(cells) == {("dora", "a"): "among_best", ("lora", "a"): "", ("pissa", "a"): "among_best"}


def test_equal_differences_are_not_bold() -> None:
    equal = {(row, "a"): cell(row, "a", [base] * 3) for row, base in (("dora", 60.0), ("lora", 50.0))}
    assert set(marks(equal).values()) == {""}


def test_cells_without_a_value_or_of_another_setting_are_not_ranked() -> None:
    cells = two_methods("a", 0.01)
    cells["pissa", "a"] = TableCell("pissa", "a", "counted", ours=t_interval([99.0]))
    apart = TableCell("x", "a", "value", ours=t_interval([99.0, 98.0, 97.0]), apart={"train.max_steps": "80"})
    cells["x", "a"] = apart
    assert marks(cells) == {("dora", "a"): "best", ("lora", "a"): "", ("pissa", "a"): "", ("x", "a"): ""}


def write_three_methods(root: Path, gap: float, seeds: int = 3, **options: Any) -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.random(300)
    for method, skill in (("lora", 0.5), ("dora", 0.5 + gap), ("pissa", 0.3)):
        for seed in range(seeds):
            right = difficulty + rng.normal(0, 0.05, 300) < skill
            record = make_record(method, seed, {"gsm8k": float(right.mean())}, **options)
            write_run(root, record, {"gsm8k": make_samples(right)})


def test_grid_marks_the_best_methods_and_explains_the_marks(tmp_path: Path) -> None:
    write_three_methods(tmp_path / "clear", 0.1)
    table = built("grid", tmp_path / "clear")
    assert {cell.row: cell.mark for cell in table.cells.values()} == {"lora_r8": "", "dora_r8": "best", "pissa_r8": ""}
    assert table.cells["lora_r8", "micro/gsm8k"].test == "t over unpaired seeds and questions (crossed variances)"
    write_three_methods(tmp_path / "close", 0.004)
    table = built("grid", tmp_path / "close")
    marked = {cell.row: cell.mark for cell in table.cells.values()}
    assert marked == {"lora_r8": "among_best", "dora_r8": "among_best", "pissa_r8": ""}
    assert "p times the 3 pairs of methods in all columns" in "\n".join(table.footer)
    text = FORMATS["markdown"][1](table)
    assert text.count("<u>") == 2 and "**" not in text.replace("**Methods by tasks**", "")


def test_pairing_of_seeds_follows_the_family_of_the_model(tmp_path: Path) -> None:
    for family, word in (("decoder", "unpaired"), ("encoder", "paired"), ("vision", "paired")):
        write_three_methods(tmp_path / family, 0.1, family=family)
        tests = {cell.test for cell in built("grid", tmp_path / family).cells.values() if cell.test}
        assert tests == {f"t over {word} seeds and questions (crossed variances)"}


def contrast_between(root: Path, ours: str, theirs: str):
    table = built("grid", root)
    column = table.table.columns[0]
    return contrast(column, table.cells[ours, column.name], table.cells[theirs, column.name])


def test_tested_difference_equals_the_displayed_one(tmp_path: Path) -> None:
    """Unpaired tests use all seeds of both sides. Paired tests use common seeds, unless these differ the other way."""
    for seed, value in enumerate([0.50, 0.52, 0.54, 0.90]):
        write_run(tmp_path / "text", make_record("lora", seed, {"gsm8k": value}))
    for seed, value in enumerate([0.60, 0.62, 0.61]):
        write_run(tmp_path / "text", make_record("dora", seed, {"gsm8k": value}))
    found = contrast_between(tmp_path / "text", "dora_r8", "lora_r8").comparison
    assert found.difference == pytest.approx(61.0 - 61.5) and found.seeds == 3
    for method, values in (("lora", [0.50, 0.52, 0.54, 0.99]), ("dora", [0.60, 0.62, 0.66])):
        for seed, value in enumerate(values):
            write_run(tmp_path / "head", make_record(method, seed, {"gsm8k": value}, family="encoder"))
    other = contrast_between(tmp_path / "head", "dora_r8", "lora_r8")
    assert other.untested == "the common seeds differ the other way than all seeds"
    assert math.isnan(other.comparison.p_value) and other.comparison.difference == pytest.approx(
        62.667 - 63.75, abs=0.01
    )


def test_fewer_than_three_common_seeds_are_not_tested_where_seeds_are_paired(tmp_path: Path) -> None:
    for method, first, value in (("lora", 0, 0.2), ("dora", 1, 0.9)):
        for seed in range(first, first + 3):
            record = make_record(method, seed, {"gsm8k": value + 0.01 * seed**2}, family="encoder")
            write_run(tmp_path, record)
    assert contrast_between(tmp_path, "dora_r8", "lora_r8").untested == "fewer than 3 common seeds"
    assert {cell.mark for cell in built("grid", tmp_path).cells.values()} == {""}


def test_answers_to_other_questions_are_not_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for method, shift in (("lora", 0), ("dora", 1000)):
        for seed in range(3):
            right = rng.random(50) < 0.5
            samples = make_samples(right)
            for sample in samples:
                sample["id"] = f"q{sample['index'] + shift}"
            write_run(tmp_path, make_record(method, seed, {"gsm8k": float(right.mean())}), {"gsm8k": samples})
    assert contrast_between(tmp_path, "dora_r8", "lora_r8").comparison.test == "Welch's t over seeds"


def test_score_that_is_no_mean_of_answers_is_tested_over_seeds(tmp_path: Path) -> None:
    """For example a Matthews correlation is no mean over questions, so the test uses the scores of seeds."""
    for method, value in (("lora", 0.5), ("dora", 0.75)):
        for seed in range(3):
            right = [True, True, seed == 0, False] if method == "dora" else [True, seed == 0, False, False]
            record = make_record(method, seed, {"gsm8k": value + 0.01 * seed})
            write_run(tmp_path, record, {"gsm8k": make_samples(right)})
    assert contrast_between(tmp_path, "dora_r8", "lora_r8").comparison.test == "Welch's t over seeds"


def test_runs_that_did_not_learn_are_marked_and_noted(tmp_path: Path) -> None:
    """Three runs that predict one class, at exactly the majority share: a symbol in the cell and a note below."""
    labels = [1.0] * 14 + [0.0] * 6
    for method, predictions in (("lora", labels), ("lora_xs", [1.0] * 20)):
        for seed in range(3):
            samples = [
                {"index": i, "id": f"q{i}", "target": t, "response": p, "scores": {"accuracy": float(t == p)}}
                for i, (t, p) in enumerate(zip(labels, predictions, strict=True))
            ]
            value = sum(sample["scores"]["accuracy"] for sample in samples) / 20  # type: ignore[index,misc]
            record = make_record(method, seed, {"glue/mrpc": value}, task="glue/mrpc", scorer="accuracy", n=20)
            write_run(tmp_path, record, {"glue/mrpc": samples})
    table = built("grid", tmp_path)
    cells = {cell.row: cell for cell in table.cells.values()}
    assert cells["lora_r8"].note == "" and cells["lora_xs_r8"].note == "‡3"
    text = "\n".join(table.footer)
    assert "LoRA-XS, r 8 on MRPC (embedded): 3 of 3 one prediction for every row" in text
    assert "Floors: MRPC (embedded) 70.00 (majority class)." in text
    assert all("‡3" in render(table).replace(r"$\ddagger$", "‡") for _, render in FORMATS.values())


@pytest.mark.parametrize("seeds", [3, 5])
def test_nine_equal_methods_are_seldom_distinguished(seeds: int) -> None:
    """In a simulation, one method is bold in at most 5 % of studies, and all are among the best in at least 95 %."""
    rng = np.random.default_rng(8)
    studies, bold, complete = 200, 0, 0
    for _ in range(studies):
        cells = {(f"m{i}", "a"): cell(f"m{i}", "a", rng.normal(50, 2, seeds).tolist()) for i in range(9)}
        found = marks(cells)
        bold += "best" in found.values()
        complete += set(found.values()) == {"among_best"}
    assert bold / studies <= 0.05 and complete / studies >= 0.95
