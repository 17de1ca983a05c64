"""One leaderboard a task: methods by score, with what each cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdsbench.core.errors import Refused
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.cells import Cell
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.definitions.grid import grid
from sdsbench.results.tables.runs import Run

_COSTS = (
    Column("trainable", "Trainable", {}, "parameters.adapter", format="count", better=""),
    Column("memory", "Memory, GiB", {}, "memory.peak_bytes", format="gib", better=""),
    Column("train_seconds", "Training, s", {}, "seconds.train", format="seconds", better=""),
)


@dataclass(frozen=True)
class Board:
    """A task's table, its score column and its rows from best to worst; or why it cannot be built."""

    title: str
    slug: str
    column: Column
    rows: tuple[Row, ...] = ()
    built: Built | None = None
    refusal: str = ""

    def cell(self, row: Row) -> Cell:
        assert self.built is not None
        return self.built.cells[row.name, self.column.name]

    @property
    def valued(self) -> list[tuple[Row, Cell]]:
        """Rows that have a score."""
        return [(row, cell) for row in self.rows if (cell := self.cell(row)).ours is not None]


def boards(runs: Sequence[Run], stage: str = "trained") -> list[Board]:
    """A board for each model, protocol, task, training set, data source and evaluation with scores."""
    whole = grid(runs, stage)
    made = []
    for number, column in enumerate(whole.columns, 1):
        title = f"{column.group}: {column.title}"
        empty = Board(title, f"board{number}", column)
        try:
            made.append(_board(whole, column, runs, empty))
        except Refused as refusal:
            made.append(replace(empty, refusal=str(refusal)))
    return made


def _board(whole: Table, column: Column, runs: Sequence[Run], empty: Board) -> Board:
    here = [run for run in runs if run.fits(column.where)]
    known = {run.id for run in here}
    rows = [row for row in whole.rows if known & set(row.where["run_id"])]
    rows = [replace(row, where={"run_id": tuple(i for i in row.where["run_id"] if i in known)}) for row in rows]
    score = replace(column, group="")
    scored = build(Table(empty.slug, empty.title, tuple(rows), (score,), real_data=False), here)
    rows = [row for row in rows if scored.cells[row.name, score.name].status != "missing"]
    rows.sort(key=lambda row: -cell.ours.mean if (cell := scored.cells[row.name, score.name]).ours else 1.0)
    shown = [replace(row, where={"run_id": _ids(scored.cells[row.name, score.name])}) for row in rows]
    table = replace(scored.table, rows=tuple(shown), columns=(score, *_COSTS))
    costs = build(replace(table, columns=_COSTS), here)
    cells = {(row.name, score.name): scored.cells[row.name, score.name] for row in rows} | costs.cells
    return replace(empty, rows=tuple(shown), built=replace(scored, table=table, cells=cells))


def _ids(cell: Cell) -> tuple[str, ...]:
    """Costs are shown of the very runs whose scores are."""
    return tuple(run.id for run in (*cell.runs, *cell.unfinished))
