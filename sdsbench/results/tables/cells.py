"""Runs -> table cells: the runs of a cell, their mean and interval, the paper's number, or why there is no value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sdsbench.core.grouped import grouped
from sdsbench.results import setting
from sdsbench.results.learned import SYMBOL, not_learned
from sdsbench.results.statistics.intervals import Interval, t_interval
from sdsbench.results.tables import published, run_values
from sdsbench.results.tables.counted import count
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.published import Published

SCALE = {"score": 100.0, "share": 100.0, "gib": 2.0**-30}
UNFINISHED = ("oom", "failed", "timeout", "preempted", "running")


@dataclass(frozen=True)
class TableCell:
    """One table cell. `status`: value, counted (a parameter count, no run needed), unequal (runs must not be averaged),
    missing, or a run's status.
    """

    row: str
    column: str
    status: str
    ours: Interval | None = None  # in the column's units: points of 100 for scores
    by_seed: Mapping[int, float] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    unfinished: tuple[Run, ...] = ()
    paper: Published | None = None
    mark: str = ""  # best, or among_best (not significantly different from the best)
    p_value: float | None = None  # p-value of the best cell against this one, adjusted over the table
    test: str = ""
    lacking: str = ""  # for a mean: the parts without a value
    problems: tuple[str, ...] = ()  # why its runs must not be averaged: one line per differing key, with the values
    apart: Mapping[str, str] = field(default_factory=dict)  # facts that differ from the column's majority
    unlearned: Mapping[str, str] = field(default_factory=dict)  # run id -> why the run did not learn

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number, in the column's units; None if either is missing."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper.value

    @property
    def note(self) -> str:
        """Unfinished runs (`1 oom`), missing parts of a mean, and reasons against comparing this cell."""
        counts = Counter(run.record.status for run in self.unfinished if self.ours is not None)
        unfinished = (f"{count} {status}" for status, count in sorted(counts.items()))
        apart = (f"other {key}: {value}" for key, value in self.apart.items())
        symbol = f"{SYMBOL}{len(self.unlearned)}" if self.unlearned else ""
        return ", ".join(filter(None, (symbol, *unfinished, self.lacking, *apart)))


Exclusions = dict[str, str]
"""Run id -> the first reason for which the run was left out."""


def make(table: Table, row: Row, column: Column, runs: Sequence[Run], excluded: Exclusions) -> TableCell:
    """Make the cell of a row and a column from the runs that fit both."""

    def without(runs: Sequence[Run], kind: Callable[[Run], bool], reason: str) -> list[Run]:
        for run in filter(kind, runs):
            excluded.setdefault(run.id, reason)
        return [run for run in runs if not kind(run)]

    fitting = list(runs)
    if table.real_data:
        fitting = without(fitting, lambda run: run.embedded, "embedded data stands in for the real set")
    if column.stage != "validation":
        why = "scored on rows held back from training, to choose a value"
        fitting = without(fitting, lambda run: setting.tuning_run(run.record), why)
    # The validation scores of a tuned method are those of its tuning runs, which hold no tuning themselves.
    if column.stage != "validation" and any(run.record.tuning for run in fitting):
        fitting = without(fitting, lambda run: not run.record.tuning, "not tuned, where other runs of its cell are")
    done = [run for run in fitting if run.record.status == "done"]
    unfinished = tuple(run for run in fitting if run.record.status in UNFINISHED)
    having = [(run, number) for run in done if (number := run_values.value(run, column)) is not None]
    for run in done:
        if column.measure == "score" and run_values.value(run, column) is None:
            excluded.setdefault(run.id, f"no {column.stage} score of {column.evaluation} {column.scorer}".rstrip())
    empty = TableCell(row.name, column.name, "missing", unfinished=unfinished, paper=_published(table, row, column))
    if not having:
        return _without_value(empty, row, column)
    if column.format == "count":
        return _the_count(empty, having)
    cell = mean_cell(empty, column, having)
    return replace(empty, status="unequal", runs=cell.runs, problems=cell.problems) if cell.problems else cell


def mean_of(table: Table, row: Row, column: Column, parts: Sequence[TableCell]) -> TableCell:
    """The mean of other cells, seed by seed, over the seeds that all of them have; missing if there is none."""
    unfinished = tuple({run.id: run for part in parts for run in part.unfinished}.values())
    empty = TableCell(row.name, column.name, "missing", unfinished=unfinished, paper=_published(table, row, column))
    if absent := [part.column.partition("/")[2] for part in parts if part.ours is None]:
        empty = replace(empty, lacking=f"without {', '.join(absent)}")
        return replace(empty, status=_status(unfinished)) if unfinished else empty
    seeds = sorted(set.intersection(*(set(part.by_seed) for part in parts)))
    every = set.union(*(set(part.by_seed) for part in parts))
    if not seeds:
        return replace(empty, lacking="no seed has all parts")
    if len(seeds) < len(every):
        empty = replace(empty, lacking=f"{len(seeds)} of {len(every)} seeds have all parts")
    by_seed = {seed: sum(part.by_seed[seed] for part in parts) / len(parts) for seed in seeds}
    runs = tuple({run.id: run for part in parts for run in part.runs if run.record.seed in by_seed}.values())
    return replace(
        empty,
        status="value",
        ours=t_interval([by_seed[seed] for seed in seeds]),
        by_seed=by_seed,
        runs=runs,
        unlearned={run_id: reason for part in parts for run_id, reason in part.unlearned.items()},
    )


def _published(table: Table, row: Row, column: Column) -> Published | None:
    if not (table.paper and row.published and column.published):
        return None
    return published.lookup(table.paper, {"table": table.number, **row.published, **column.published})


def _without_value(cell: TableCell, row: Row, column: Column) -> TableCell:
    counted = count(column.measure, {**column.where, **row.where})
    if counted is not None:
        return replace(cell, status="counted", ours=Interval(counted, float("nan"), float("nan"), 0))
    return replace(cell, status=_status(cell.unfinished)) if cell.unfinished else cell


def _status(unfinished: Sequence[Run]) -> str:
    """The most frequent status; among equally frequent ones the worst."""
    counts = Counter(str(run.record.status) for run in unfinished)
    return max(UNFINISHED, key=lambda status: (counts[status], -UNFINISHED.index(status)))


def _the_count(empty: TableCell, having: Sequence[tuple[Run, float]]) -> TableCell:
    """A cell with a count, which is not averaged: all runs must have the same value."""
    runs = tuple(run for run, _ in having)
    holders: dict[float, list[str]] = {}
    for run, number in having:
        holders.setdefault(number, []).append(run.id)
    if len(holders) > 1:
        problem = "; ".join(f"{number:.0f} in {', '.join(ids)}" for number, ids in holders.items())
        return replace(empty, status="unequal", runs=runs, problems=(problem,))
    value = Interval(having[0][1], float("nan"), float("nan"), len(having))
    return replace(empty, status="value", ours=value, runs=runs)


def mean_cell(empty: TableCell, column: Column, having: Sequence[tuple[Run, float]]) -> TableCell:
    """A cell with the mean over seeds; `problems` lists differences of the runs other than the seed."""
    runs = [run for run, _ in having]
    scores = {run.id: run_values.score_of(run, column) for run in runs}
    cost = run_values.is_cost(column.measure)
    problems = setting.differences(runs, [setting.averaged(run, scores[run.id], cost) for run in runs])
    problems += _repeated_seeds(runs)
    scale = SCALE.get(column.format, 1.0)
    by_seed = {run.record.seed: number * scale for run, number in having}
    ours = t_interval([by_seed[seed] for seed in sorted(by_seed)])
    unlearned = {run.id: reason for run in runs if (reason := not_learned(run, scores[run.id]))}
    return replace(
        empty, status="value", ours=ours, by_seed=by_seed, runs=tuple(runs), problems=tuple(problems),
        unlearned=unlearned,
    )  # fmt: skip


def _repeated_seeds(runs: Sequence[Run]) -> list[str]:
    seeds = grouped(sorted(run.id for run in runs), {run.id: run.record.seed for run in runs}.__getitem__)
    return [f"seed {seed} occurs in {', '.join(ids)}" for seed, ids in sorted(seeds.items()) if len(ids) > 1]
