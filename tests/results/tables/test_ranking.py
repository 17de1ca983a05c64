"""Which cell of a column is bold: the threshold, Holm's correction over the table, the direction of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from scipy import stats

from sdsbench.results.statistics import t_interval
from sdsbench.results.tables.cells import Cell
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.ranking import compare, mark

Cells = dict[tuple[str, str], Cell]


def differences_with(p_value: float) -> list[float]:
    """Two paired differences whose t-test has this p-value: their mean is t times its standard error, which is 1."""
    t = float(stats.t.isf(p_value / 2, df=1))
    return [t + 1, t - 1]


def contest(column: str, p_value: float, best: str = "dora", second: str = "lora") -> Cells:
    """A column in which `best` lies above `second` with a paired t-test over two seeds of this p-value."""
    differences = differences_with(p_value)
    return {
        (best, column): cell(best, column, [50 + difference for difference in differences]),
        (second, column): cell(second, column, [50.0, 50.0]),
    }


def cell(row: str, column: str, values: Sequence[float]) -> Cell:
    return Cell(row, column, "value", ours=t_interval(values), by_seed=dict(enumerate(values)))


def marks(cells: Cells, better: str = "higher") -> dict[tuple[str, str], str]:
    names = dict.fromkeys(column for _, column in cells)
    columns = [Column(name, "", {}, measure="seconds.train", better=better) for name in names]  # type: ignore[arg-type]
    return {key: found.mark for key, found in mark(columns, cells).items()}


@pytest.mark.parametrize(("p_value", "shown"), [(0.049, "best"), (0.051, ""), (0.2, ""), (0.49, "")])
def test_bold_is_for_p_below_one_in_twenty(p_value: float, shown: str) -> None:
    cells = contest("a", p_value)
    assert marks(cells) == {("dora", "a"): shown, ("lora", "a"): "second"}
    found = mark([Column("a", "", {}, measure="seconds.train")], cells)["dora", "a"]
    assert found.p_value == pytest.approx(p_value), "the contest is the one that was asked for"


def test_p_values_are_corrected_over_the_columns_of_a_table() -> None:
    """0.03 alone is bold; of two such columns Holm makes 0.06, of 0.02 and 0.03 both stay below 0.05."""
    assert marks(contest("a", 0.03))["dora", "a"] == "best"
    assert marks(contest("a", 0.03) | contest("b", 0.03))["dora", "a"] == ""
    both = marks(contest("a", 0.02) | contest("b", 0.03))
    assert (both["dora", "a"], both["dora", "b"]) == ("best", "best")


def test_where_lower_is_better_the_lowest_is_bold_and_without_a_direction_nothing_is() -> None:
    cells = contest("a", 0.01)
    assert marks(cells, "lower") == {("lora", "a"): "best", ("dora", "a"): "second"}
    assert set(marks(cells, "").values()) == {""}


def test_the_best_is_tested_against_the_second_and_no_other() -> None:
    cells = contest("a", 0.2) | {("pissa", "a"): cell("pissa", "a", [1.0, 1.1])}
    assert marks(cells) == {("dora", "a"): "", ("lora", "a"): "second", ("pissa", "a"): ""}


def test_a_tie_marks_nothing() -> None:
    equal = {(row, "a"): cell(row, "a", [50.0, 51.0]) for row in ("dora", "lora")}
    assert set(marks(equal).values()) == {""}


def test_a_cell_without_a_value_takes_no_part() -> None:
    cells = contest("a", 0.01) | {("pissa", "a"): Cell("pissa", "a", "counted", ours=t_interval([99.0]))}
    assert marks(cells) == {("dora", "a"): "best", ("lora", "a"): "second", ("pissa", "a"): ""}


def test_without_a_common_seed_nothing_is_tested() -> None:
    """The second is marked all the same, and another column's test is corrected for one contest alone."""
    apart = {
        ("dora", "a"): replace(cell("dora", "a", [60.0, 61.0]), by_seed={0: 60.0, 1: 61.0}),
        ("lora", "a"): replace(cell("lora", "a", [50.0, 50.5]), by_seed={2: 50.0, 3: 50.5}),
    }
    assert marks(apart | contest("b", 0.04)) == {
        ("dora", "a"): "", ("lora", "a"): "second", ("dora", "b"): "best", ("lora", "b"): "second",
    }  # fmt: skip


def test_the_interval_of_a_difference_is_that_of_95_percent_over_common_seeds() -> None:
    ours, theirs = cell("dora", "a", [61.0, 62.5, 60.2]), cell("lora", "a", [60.1, 61.9, 60.0])
    found = compare(Column("a", "", {}, measure="seconds.train"), ours, theirs)
    expected = t_interval([0.9, 0.6, 0.2], confidence=0.95)
    assert found is not None
    assert (found.difference, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
