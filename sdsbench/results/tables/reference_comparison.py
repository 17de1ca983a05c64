"""Comparing each method with a declared reference: `sdsbench table compare --reference lora`.

The reference of a row is the reference method's row at the same rank, in its plain form and setting. If the row has no
rank, or there is no such row and the column has just one row of the reference method, that one is used (the table shows
its title). With `--reference-rank` all rows, other ranks of the reference included, are compared with the reference at
that rank. All differences of one table are one family of tests: p is Holm-adjusted over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from sdsbench.core.errors import Refused
from sdsbench.core.record import Record
from sdsbench.core.texts import listed
from sdsbench.results import escape
from sdsbench.results.statistics.correction import holm
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.contrast import MIN_SEEDS, PAIRED_RULE, Contrast, contrast, paired_over_seeds, pooled_over
from sdsbench.results.tables.definition import Column, Row
from sdsbench.results.tables.footer import left_out
from sdsbench.results.tables.ranking import comparable
from sdsbench.results.tables.render import plain
from sdsbench.results.tables.render.cell_texts import exact
from sdsbench.results.tables.titles import method_title

NAME = "compare"
TITLE = "Methods against {}"


@dataclass(frozen=True)
class Difference:
    """One row against its reference in one column; `contrast` is None if it has no reference to compare with."""

    column: Column
    row: Row
    cell: TableCell
    reference: Row | None
    reference_cell: TableCell | None
    contrast: Contrast | None
    why: str = ""
    adjusted: float = math.nan  # Holm-adjusted p over the table

    @property
    def seeds(self) -> tuple[int, int]:
        """Seeds of the method and of its reference that the difference is over."""
        if self.contrast is not None and self.contrast.paired:
            return self.contrast.comparison.seeds, self.contrast.comparison.seeds
        return len(self.cell.by_seed), len(self.reference_cell.by_seed) if self.reference_cell else 0


@dataclass(frozen=True)
class Compared:
    """All differences of a table to the reference method; `pooled`: with a pooled variance between seeds."""

    reference: str
    differences: tuple[Difference, ...]
    pooled: bool
    built: Built

    @property
    def tests(self) -> int:
        """Number of tests in the family that p-values are adjusted for."""
        return sum(not math.isnan(difference.adjusted) for difference in self.differences)


def compare(built: Built, reference: str = "lora", pooled: bool = False, rank: int | None = None) -> Compared:
    """Compare all rows of a grid with the method `reference`, at equal rank or at `rank` if given.

    Raises Refused if the grid has no row of that method, or none at that rank.
    """
    records = {row.name: _record(built, row) for row in built.table.rows}
    methods = sorted({record.method for record in records.values() if record})
    if reference not in methods:
        raise Refused(f"--reference {reference}: no run of this method is here; there are: {', '.join(methods)}.")
    of_method = {name: record.rank for name, record in records.items() if record and record.method == reference}
    if rank is not None and rank not in of_method.values():
        known = ", ".join(map(str, sorted({its for its in of_method.values() if its is not None})))
        raise Refused(f"--reference-rank {rank}: no run of {reference} at this rank is here; there are: {known}.")
    bases = {name for name, its in of_method.items() if rank in (None, its)}
    found = [difference for column in built.table.columns for difference in _of_column(built, column, bases, pooled)]
    p_values = [d.contrast.comparison.p_value if d.contrast else math.nan for d in found]
    adjusted = holm(p_values)
    whole = tuple(replace(d, adjusted=p) for d, p in zip(found, adjusted, strict=True))
    return Compared(reference, whole, pooled, built)


def frame(compared: Compared) -> pd.DataFrame:
    """One row per method and column, all numbers at full precision."""
    return pd.DataFrame([_frame_row(difference) for difference in compared.differences], columns=list(_COLUMNS))


def render(compared: Compared, kind: str) -> str:
    """The comparison as markdown, latex, html or csv."""
    if kind == "csv":
        return escape.csv(frame(compared))
    title = TITLE.format(method_title(compared.reference, None))
    shown = pd.DataFrame(_lines(compared), columns=list(_HEADS))
    return plain.render(kind, shown, title, NAME, "p{2.3cm}p{2.1cm}p{1.4cm}rrrrrrp{2.2cm}", notes(compared))


def notes(compared: Compared) -> list[str]:
    """Sentences that explain the numbers."""
    variance = "one pooled variance between seeds a column" if compared.pooled else "each pair's own variances"
    kinds = sorted(
        {d.contrast.comparison.test for d in compared.differences if not math.isnan(d.adjusted) and d.contrast}
    )
    family = f"the {compared.tests} differences of this table, its one family of tests"
    if compared.tests == 1:
        family = "the one difference of this table"
    return [
        "Score: mean over seeds ± half-width of its 95 % t-interval. Difference: method - reference"
        f"{_units(compared)}; [ ]: its 95 % interval, of each difference alone.",
        f"p: two-sided, Holm-adjusted over {family}; "
        f"{PAIRED_RULE}; {variance}{': ' if kinds else ''}{', '.join(kinds)}.",
        "Detectable: the smallest true difference that this test finds with a probability of 80 % at 5 %, one test "
        "alone.",
        f"Not tested: below {MIN_SEEDS} seeds a side, and where the note says why.",
        *left_out(compared.built.cells, compared.built.excluded),
    ]


def _units(compared: Compared) -> str:
    """The unit of the differences: points for shares, none for losses and other numbers."""
    shares = {difference.column.format == "score" for difference in compared.differences}
    if shares == {True, False}:
        return ", of shares in points of 100"
    return "" if shares == {False} else ", in points of 100"


def _of_column(built: Built, column: Column, bases: Container[str], pooled: bool) -> list[Difference]:
    """Compare a column's rows with its reference rows, whose names are in `bases`."""
    cells = {row.name: built.cells[row.name, column.name] for row in built.table.rows}
    usable = {cell.row for cell in comparable(column, list(cells.values()))}
    references = [row for row in built.table.rows if row.name in bases and cells[row.name].ours is not None]
    valued = [cells[name] for name in usable]
    unpaired = not paired_over_seeds([run for cell in valued for run in cell.runs])
    shared = pooled_over(valued) if pooled and unpaired else None
    found = []
    for row in built.table.rows:
        cell = cells[row.name]
        if cell.status == "missing" or row in references:
            continue
        base, why = _reference(cell, references, cells)
        if cell.ours is None:
            why = cell.status
        elif base is not None and not {row.name, base.name} <= usable:
            why = "another setting"
        tested = contrast(column, cell, cells[base.name], pooled=shared) if base is not None and not why else None
        found.append(Difference(column, row, cell, base, cells[base.name] if base else None, tested, why))
    return found


def _reference(cell: TableCell, references: Sequence[Row], cells: dict[str, TableCell]) -> tuple[Row | None, str]:
    """The row that another one is compared with, or why there is none."""
    runs = (*cell.runs, *cell.unfinished)
    rank = runs[0].record.rank if runs else None
    equal = [base for base in references if cells[base.name].runs[0].record.rank == rank]
    rates = {run.row_facts.get("train.lr") for run in cell.runs}
    alike = [base for base in equal if {run.row_facts.get("train.lr") for run in cells[base.name].runs} == rates]
    for some in (equal, alike, references):
        if len(some) == 1:
            return some[0], ""
    if not references:
        return None, "no reference here"
    advice = "" if equal else "; --reference-rank takes one"
    return None, f"several references: {listed(base.title for base in equal or references)}{advice}"


def _record(built: Built, row: Row) -> Record | None:
    """The record of any run of a row; all its runs have the same method and rank."""
    for column in built.table.columns:
        cell = built.cells[row.name, column.name]
        for run in (*cell.runs, *cell.unfinished):
            return run.record
    return None


_COLUMNS = (
    "column", "row", "reference", "score", "reference_score", "difference", "low", "high", "p_value", "p_holm", "seeds",
    "reference_seeds", "detectable", "test", "not_learned", "note",
)  # fmt: skip
_HEADS = ("task", "method", "reference", "score", "difference", "95 %", "p", "seeds", "detectable", "note")


def _frame_row(d: Difference) -> dict[str, object]:
    c = d.contrast.comparison if d.contrast else None
    base = d.reference_cell
    return {
        "column": d.column.name,
        "row": d.row.name,
        "reference": d.reference.name if d.reference else "",
        "score": d.cell.ours.mean if d.cell.ours else None,
        "reference_score": base.ours.mean if base and base.ours else None,
        "difference": c.difference if c else None,
        "low": c.low if c else None,
        "high": c.high if c else None,
        "p_value": c.p_value if c else None,
        "p_holm": d.adjusted,
        "seeds": d.seeds[0],
        "reference_seeds": d.seeds[1],
        "detectable": c.variances.detectable() if c and c.variances else None,
        "test": c.test if c else "",
        "not_learned": len(d.cell.unlearned) + (len(base.unlearned) if base else 0),
        "note": _note(d),
    }


def _note(d: Difference) -> str:
    unlearned = [
        f"{len(cell.unlearned)} of {len(cell.runs)} runs of {title} did not learn"
        for cell, title in ((d.cell, "the method"), (d.reference_cell, "the reference"))
        if cell is not None and cell.unlearned
    ]
    every = max(len(cell.by_seed) for cell in (d.cell, d.reference_cell) if cell is not None)
    common = "difference over the common seeds" if d.contrast and d.contrast.paired and d.seeds[0] < every else ""
    return "; ".join(filter(None, (d.why, d.contrast.untested if d.contrast else "", common, *unlearned)))


def _lines(compared: Compared) -> list[list[str]]:
    """The table's lines: for each column first the references, then each method against its reference."""
    lines = []
    for column in compared.built.table.columns:
        found = [d for d in compared.differences if d.column.name == column.name]
        for row in {d.reference.name: d.reference for d in found if d.reference}.values():
            cell = compared.built.cells[row.name, column.name]
            lines.append(
                [column.heading, row.title, "", _score(column, cell), "", "", "", str(len(cell.by_seed)), "", ""]
            )
        lines += map(_texts, found)
    return lines


def _score(column: Column, cell: TableCell) -> str:
    if cell.ours is None:
        return ""
    half_width = f" ±{exact(cell.ours.half_width, column.format)}" if cell.ours.n > 1 else ""
    return exact(cell.ours.mean, column.format) + half_width


def _texts(d: Difference) -> list[str]:
    c = d.contrast.comparison if d.contrast else None
    detectable = c.variances.detectable() if c and c.variances else math.nan
    kind = d.column.format
    sign = "+" if c and c.difference >= 0 else ""
    return [
        d.column.heading,
        d.row.title,
        d.reference.title if d.reference else "",
        _score(d.column, d.cell),
        sign + exact(c.difference, kind) if c else "",
        f"[{exact(c.low, kind)}, {exact(c.high, kind)}]" if c and not math.isnan(c.low) else "",
        "" if math.isnan(d.adjusted) else f"{d.adjusted:.3f}" if d.adjusted >= 0.001 else "< 0.001",
        ", ".join(map(str, dict.fromkeys(d.seeds))),
        "" if math.isnan(detectable) else exact(detectable, kind),
        _note(d),
    ]
