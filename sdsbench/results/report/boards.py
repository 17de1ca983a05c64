"""One leaderboard a task: methods by score, with what each cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.definitions.grid import grid
from sdsbench.results.tables.footer import footer
from sdsbench.results.tables.ranking import family
from sdsbench.results.tables.runs import Run

_COSTS = (
    Column("trainable", "Trainable", {}, "parameters.adapter", format="count", better=""),
    Column("memory", "Memory, GiB", {}, "memory.peak_bytes", format="gib", better=""),
    Column("train_seconds", "Training, s", {}, "seconds.train", format="seconds", better=""),
)


@dataclass(frozen=True)
class Board:
    """A task's table, its score column and its rows from best to worst."""

    title: str
    slug: str
    column: Column
    rows: tuple[Row, ...]
    built: Built

    def cell(self, row: Row) -> TableCell:
        return self.built.cells[row.name, self.column.name]

    @property
    def valued(self) -> list[tuple[Row, TableCell]]:
        """Rows that have a score."""
        return [(row, cell) for row in self.rows if (cell := self.cell(row)).ours is not None]


def boards(runs: Sequence[Run], stage: str = "trained") -> list[Board]:
    """A board for each column of the grid of all runs, with its cells and marks: the same tests as in the table."""
    whole = grid(runs, stage)
    built = build(whole, runs)
    tests = family(whole.columns, built.cells)
    return [_board(built, column, number, tests) for number, column in enumerate(whole.columns, 1)]


def _board(whole: Built, column: Column, number: int, tests: int) -> Board:
    def cell(row: Row) -> TableCell:
        return whole.cells[row.name, column.name]

    title, slug = f"{column.group}: {column.title}", f"board{number}"
    rows = [row for row in whole.table.rows if cell(row).status != "missing"]
    rows.sort(key=lambda row: -ours.mean if (ours := cell(row).ours) else 1.0)
    # Costs are shown of the very runs whose scores are.
    shown = tuple(
        replace(row, where={"run_id": frozenset(run.id for run in (*cell(row).runs, *cell(row).unfinished))})
        for row in rows
    )
    runs = list({run.id: run for row in rows for run in (*cell(row).runs, *cell(row).unfinished)}.values())
    costs = build(Table(slug, title, shown, _COSTS, real_data=False), runs)
    score = replace(column, group="")
    table = Table(slug, title, shown, (score, *_COSTS), real_data=False)
    cells = {(row.name, score.name): cell(row) for row in rows} | costs.cells
    known = {run_id for run_id in whole.excluded if run_id in column.where.get("run_id", ())}
    excluded = {run_id: whole.excluded[run_id] for run_id in sorted(known)}
    return Board(title, slug, score, shown, Built(table, cells, footer(table, cells, excluded, tests), excluded))
