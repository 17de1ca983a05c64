"""Tracing a table's cell back to the runs and files it was computed from."""

from __future__ import annotations

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.record import STAGES
from sdsbench.results.bundles.opened import shown
from sdsbench.results.frames import evaluations_with_samples
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import value


def trace(built: Built, row: str, column: str, name: str = "") -> str:
    """Text: the cell, then for each run its number, seed, status, record, configuration, metrics and answers.

    `name` replaces the table's name in the first line, since compare shows the cells of the grid. Raises ConfigError if
    the table has no such row or column.
    """
    rows, columns = [r.name for r in built.table.rows], [c.name for c in built.table.columns]
    problems = []
    if row not in rows:
        problems.append(Problem("ROW", row, ", ".join(rows)))
    if column not in columns:
        problems.append(Problem("COLUMN", column, ", ".join(columns)))
    if problems:
        raise ConfigError(problems)
    cell = built.cells[row, column]
    lines = [f"table {name or built.table.name}, row {row}, column {column}: {cell.status}"]
    if cell.ours is not None:
        lines.append(f"ours {cell.ours.mean:.6g} [{cell.ours.low:.6g}, {cell.ours.high:.6g}], {cell.ours.n} seeds")
    lines += [f"not averaged: {problem}" for problem in cell.problems]
    lines += [f"another setting: {key} {text}" for key, text in cell.apart.items()]
    lines += [f"did not learn: run {run_id}: {reason}" for run_id, reason in sorted(cell.unlearned.items())]
    if cell.paper is not None:
        lines.append(
            f"paper {cell.paper.value:g} ({cell.paper.source}) tolerance {cell.paper.tolerance} {cell.paper.note}"
        )
    definition = next(c for c in built.table.columns if c.name == column)
    for run in sorted((*cell.runs, *cell.unfinished), key=lambda run: (run.record.seed, run.id)):
        lines += ["", trace_run(run, None if definition.parts else value(run, definition))]
    return shown("\n".join(lines))


def trace_run(run: Run, number: float | None = None) -> str:
    """Text: a run's number in the traced cell, seed, status, record, configuration, metrics and answers."""
    record, provenance = run.record, run.record.provenance
    head = f"run {run.id}  seed {record.seed}  {record.status}" + (f"  {number:.6g}" if number is not None else "")
    lines = [head, f"  record   {run.folder / 'record.json'}"]
    for name in ("config.yaml", "metrics.jsonl"):
        if (run.folder / name).is_file():
            lines.append(f"  {name.split('.')[0]:<8} {run.folder / name}")
    samples = [f"{name}.{stage}" for stage in STAGES for name in evaluations_with_samples(run.folder, stage)]
    if samples:
        lines.append(f"  answers  {run.folder / 'samples'}: {', '.join(samples)}")
    if provenance is not None:
        lines.append(f"  code     {provenance.code_text()}")
        lines += [
            f"  data     {d.dataset} {d.split}: {d.source}, {d.rows} rows, {d.fingerprint[:12]}"
            for d in provenance.data
        ]
    if record.ended_by is not None:
        lines.append(f"  failure  {record.ended_by.type}: {record.ended_by.message}")
    return shown("\n".join(lines))
