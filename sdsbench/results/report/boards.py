"""One leaderboard per task: methods by score, with their costs and their differences to the reference method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdsbench.core.errors import Refused
from sdsbench.core.record import Record
from sdsbench.results.figure_style import Palette
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.footer import footer
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.ranking import family
from sdsbench.results.tables.reference_comparison import Difference, compare
from sdsbench.results.tables.titles import method_title

_COSTS = (
    Column("trainable", "Trainable", {}, "parameters.adapter", format="count", better=""),
    Column("memory", "Memory, GiB", {}, "memory.peak_bytes", format="gib", better=""),
    Column("train_seconds", "Training, s", {}, "seconds.train", format="seconds", better=""),
)


@dataclass(frozen=True)
class Board:
    """The leaderboard of one task: its table, its score column, its rows from best to worst.

    `differences` compares every row with the reference method, as `sdsbench table compare` does over the whole grid;
    empty if the reference has no run here. `tried` are all runs of the column, tuning runs included.
    """

    title: str
    slug: str
    column: Column
    rows: tuple[Row, ...]
    built: Built
    differences: tuple[Difference, ...]
    reference: str
    tried: tuple[Run, ...]
    palette: Palette

    def cell(self, row: Row) -> TableCell:
        return self.built.cells[row.name, self.column.name]

    @property
    def valued(self) -> list[tuple[Row, TableCell]]:
        """Rows that have a score."""
        return [(row, cell) for row in self.rows if (cell := self.cell(row)).ours is not None]

    @property
    def collapsed(self) -> list[tuple[Row, str, str]]:
        """(row, run id, reason) of every run that did not learn."""
        return [(row, run_id, reason) for row, cell in self.valued for run_id, reason in sorted(cell.unlearned.items())]

    def variant(self, row: Row) -> int:
        """The index of this row among its method's rows, by rank; figures give each a shade of the method's colour."""
        method = self._run(row).method
        same = [other for other in self.rows if self._run(other).method == method]
        return sorted((self._run(other).rank or 0, other.name) for other in same).index(
            (self._run(row).rank or 0, row.name)
        )

    def style(self, row: Row) -> dict[str, Any]:
        """matplotlib colour and marker of a row, the same in all figures."""
        return self.palette.style(self._run(row).method, self.variant(row))

    def _run(self, row: Row) -> Record:
        cell = self.cell(row)
        return (*cell.runs, *cell.unfinished)[0].record


def boards(runs: Sequence[Run], reference: str = "lora", rank: int | None = None) -> list[Board]:
    """One board per score column of the grid of all runs, with the same cells, marks and tests as the table."""
    whole = grid(runs)
    built = build(whole, runs)
    tests = family(whole.columns, built.cells)
    try:
        differences = compare(built, reference, rank=rank).differences
    except Refused:  # no run of the reference: each board then states this
        differences = ()
    palette = Palette(run.record.method for run in runs)
    made = []
    for number, column in enumerate(whole.columns, 1):
        here = tuple(difference for difference in differences if difference.column.name == column.name)
        tried = tuple(run for run in runs if run.fits(column.where)) if not column.parts else ()
        table = _with_costs(built, column, f"board{number}", tests)
        made.append(
            Board(table.table.title, table.table.name, table.table.columns[0], table.table.rows, table, here,
                  method_title(reference, rank), tried, palette)
        )  # fmt: skip
    return made


def _with_costs(whole: Built, column: Column, slug: str, tests: int) -> Built:
    """The rows of one column from best to worst, plus cost columns; costs that no run recorded have no column."""

    def cell(row: Row) -> TableCell:
        return whole.cells[row.name, column.name]

    title = column.heading
    rows = [row for row in whole.table.rows if cell(row).status != "missing"]
    sign = 1 if column.better == "lower" else -1
    rows.sort(key=lambda row: (0, sign * ours.mean) if (ours := cell(row).ours) else (1, 0.0))
    # Scores and costs are shown for the same runs.
    shown = tuple(
        replace(row, where={"run_id": frozenset(run.id for run in (*cell(row).runs, *cell(row).unfinished))})
        for row in rows
    )
    runs = list({run.id: run for row in rows for run in (*cell(row).runs, *cell(row).unfinished)}.values())
    # A mean over tasks has no time or memory of its own: the boards of its tasks show what each of them takes.
    of_runs = [cost for cost in _COSTS if cost.format == "count" or len({run.record.task for run in runs}) == 1]
    costs = build(Table(slug, title, shown, tuple(of_runs), real_data=False), runs)
    recorded = tuple(
        cost for cost in of_runs if any(costs.cells[row.name, cost.name].status != "missing" for row in shown)
    )
    score = replace(column, group="")
    table = Table(slug, title, shown, (score, *recorded), real_data=False)
    cells = {(row.name, score.name): cell(row) for row in rows}
    cells |= {(row.name, cost.name): costs.cells[row.name, cost.name] for row in rows for cost in recorded}
    known = {run_id for run_id in whole.excluded if run_id in column.where.get("run_id", ())}
    excluded = {run_id: whole.excluded[run_id] for run_id in sorted(known)}
    return Built(table, cells, footer(table, cells, excluded, tests), excluded)
