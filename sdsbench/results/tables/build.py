"""Building a table from its definition and records: cells, the frame behind all formats, and the footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from sdsbench.results import setting
from sdsbench.results.tables import cells as cell_module
from sdsbench.results.tables import ranking
from sdsbench.results.tables.cells import Exclusions, TableCell
from sdsbench.results.tables.definition import Column, Table
from sdsbench.results.tables.footer import footer, unreadable
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import score_of


@dataclass(frozen=True)
class Built:
    """A filled table: cells by (row name, column name), notes, and excluded runs (id -> reason)."""

    table: Table
    cells: dict[tuple[str, str], TableCell]
    footer: list[str]
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cell, in the table's order; all four formats are written from it."""
        return pd.DataFrame(
            [_frame_row(self.cells[r.name, c.name], c) for r in self.table.rows for c in self.table.columns]
        )


def build(table: Table, runs: Sequence[Run], damaged: dict[str, str] | None = None) -> Built:
    """Fill a table. A cell states itself if its runs cannot be averaged, or not be compared with its column."""
    excluded: Exclusions = {run_id: f"damaged: {reason}" for run_id, reason in (damaged or {}).items()}
    made: dict[tuple[str, str], TableCell] = {}
    # Rows and columns each filter all runs once; a cell holds the runs that fit both, in the given order.
    of_column = {c.name: {run.id for run in runs if run.fits(c.where)} for c in table.columns if not c.parts}
    for row in table.rows:
        of_row = [run for run in runs if run.fits(row.where)]
        for column in (c for c in table.columns if not c.parts):
            fitting = [run for run in of_row if run.id in of_column[column.name]]
            made[row.name, column.name] = cell_module.make(table, row, column, fitting, excluded)
        for column in (c for c in table.columns if c.parts):
            parts = [made.get((row.name, part)) or TableCell(row.name, part, "missing") for part in column.parts]
            made[row.name, column.name] = cell_module.mean_of(table, row, column, parts)
    for column in (c for c in table.columns if not c.parts):
        made |= _set_apart(column, [made[row.name, column.name] for row in table.rows])
    for column in (c for c in table.columns if c.parts and c.better):  # after their parts; means of means come last
        for row in table.rows:
            cell = made[row.name, column.name]
            if cell.status == "value":
                made[row.name, column.name] = replace(cell, apart=_apart_in([made[row.name, p] for p in column.parts]))
    made = ranking.mark(table.columns, made)
    used = {run.id for cell in made.values() for run in (*cell.runs, *cell.unfinished)}
    reasons = {run_id: reason for run_id, reason in excluded.items() if run_id not in used}
    lines = footer(table, made, reasons, ranking.family(table.columns, made))
    return Built(table, made, [*lines, *unreadable(runs)], reasons)


def _set_apart(column: Column, cells: Sequence[TableCell]) -> dict[tuple[str, str], TableCell]:
    """The cells whose setting differs from the majority of the column; they are excluded from all comparisons."""
    if column.format == "count" or not column.better:  # not ranked, so rows may have different settings
        return {}
    valued = [cell for cell in cells if cell.status == "value"]
    facts = []
    for cell in valued:
        merged: dict[str, Any] = {}
        for run in cell.runs:
            merged |= setting.compared(run, score_of(run, column))
        facts.append(merged)
    return {
        (cell.row, cell.column): replace(cell, apart=apart)
        for cell, apart in zip(valued, setting.differing_facts(facts), strict=True)
        if apart
    }


def _apart_in(parts: Sequence[TableCell]) -> dict[str, str]:
    """The facts for which any part of a mean is excluded from comparisons: the mean is then excluded, too."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for key, text in part.apart.items():
            found.setdefault(key, []).append(text)
    return {key: ", ".join(dict.fromkeys(texts)) for key, texts in found.items()}


def _frame_row(cell: TableCell, column: Column) -> dict[str, object]:
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
        "not_learned": len(cell.unlearned),
        "format": column.format,
        "runs": " ".join(sorted(run.id for run in (*cell.runs, *cell.unfinished))),
    }
