"""A definition and records -> a table: cells, one frame that every format is written from, and a footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from sdsbench.core.errors import Refused
from sdsbench.results.tables import cells as cell_module
from sdsbench.results.tables import published, ranking
from sdsbench.results.tables import cell_identity as identity
from sdsbench.results.tables.cells import Cell, Exclusions
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.footer import footer
from sdsbench.results.tables.runs import Run

SHOWN = 20  # problems that one refusal lists


@dataclass(frozen=True)
class Built:
    table: Table
    cells: dict[tuple[str, str], Cell]
    footer: list[str]
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """A row a cell, in the table's order; the one source of all four formats."""
        return pd.DataFrame(
            [_frame_row(self.cells[r.name, c.name], c) for r in self.table.rows for c in self.table.columns]
        )


def build(table: Table, runs: Sequence[Run], damaged: dict[str, str] | None = None) -> Built:
    """Fill a table. Raises Refused where runs of a cell must not be averaged, or of a column not compared."""
    excluded = Exclusions({run_id: f"damaged: {reason}" for run_id, reason in (damaged or {}).items()})
    made: dict[tuple[str, str], Cell] = {}
    problems: list[str] = []
    plain = [column for column in table.columns if not column.parts]
    for row in table.rows:
        for column in plain:
            cell, found = cell_module.make(table, row, column, runs, excluded)
            made[row.name, column.name] = cell
            problems += [f"row {row.name}, column {column.name}: {line}" for line in found]
        for column in (c for c in table.columns if c.parts):
            made[row.name, column.name] = _mean_cell(table, row, column, made)
    if not problems:
        problems = [line for column in plain for line in _column_problems(column, made)]
    if problems:
        raise Refused(
            f"table {table.name}: these runs must not be averaged or compared:\n"
            + "\n".join(f"  {line}" for line in problems[:SHOWN])
            + (f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else "")
            + "\nNarrow the runs with --where KEY=VALUE (such as provenance.code.core=...), or give other --runs."
        )
    made = ranking.mark(table.columns, made)
    used = {run.id for cell in made.values() for run in (*cell.runs, *cell.unfinished)}
    reasons = {run_id: reason for run_id, reason in excluded.reasons.items() if run_id not in used}
    return Built(table, made, footer(table, made, reasons), reasons)


def _mean_cell(table: Table, row: Row, column: Column, made: dict[tuple[str, str], Cell]) -> Cell:
    paper = None
    if table.paper and row.published and column.published:
        paper = published.lookup(table.paper, {"table": table.number, **row.published, **column.published})
    parts = [made.get((row.name, part)) or Cell(row.name, part, "missing") for part in column.parts]
    return cell_module.mean_of(row, column, parts, paper)


def _column_problems(column: Column, made: dict[tuple[str, str], Cell]) -> list[str]:
    if column.format == "count" or not column.better:  # nothing is ranked: rows may be different settings
        return []
    runs = [run for cell in made.values() if cell.column == column.name for run in cell.runs]
    facts = [identity.compared(run, column) for run in runs]
    return [f"column {column.name}: {line}" for line in identity.differences(runs, facts)]


def _frame_row(cell: Cell, column: Column) -> dict[str, object]:
    ours, paper = cell.ours, cell.paper
    within = None
    if cell.difference is not None and paper is not None and paper.tolerance is not None:
        within = abs(cell.difference) <= paper.tolerance
    return {
        "row": cell.row,
        "column": cell.column,
        "status": cell.status,
        "ours": None if ours is None else ours.mean,
        "low": None if ours is None else ours.low,
        "high": None if ours is None else ours.high,
        "n": 0 if ours is None else ours.n,
        "note": cell.note,
        "paper": None if paper is None else paper.value,
        "tolerance": None if paper is None else paper.tolerance,
        "difference": cell.difference,
        "within_tolerance": within,
        "mark": cell.mark,
        "p_value": cell.p_value,
        "format": column.format,
        "runs": " ".join(sorted(run.id for run in (*cell.runs, *cell.unfinished))),
    }
