"""Runs -> cells: which runs, their mean and interval, the paper's number, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sdsbench.results.statistics import Interval, t_interval
from sdsbench.results.tables import measures, published
from sdsbench.results.tables import cell_identity as identity
from sdsbench.results.tables.counted import count
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.published import Published
from sdsbench.results.tables.runs import Run

SCALE = {"score": 100.0, "share": 100.0, "gib": 2.0**-30}
UNFINISHED = ("oom", "failed", "timeout", "preempted", "running")


@dataclass(frozen=True)
class Cell:
    """One cell. `status`: value, counted (a parameter count without a run), missing, or a run's status."""

    row: str
    column: str
    status: str
    ours: Interval | None = None  # in the column's units: points of 100 for scores
    by_seed: Mapping[int, float] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    unfinished: tuple[Run, ...] = ()
    paper: Published | None = None
    mark: str = ""  # best or second
    p_value: float | None = None  # of best against second, Holm-adjusted over the table
    test: str = ""
    lacking: str = ""  # of a mean: which parts it does not have

    @property
    def difference(self) -> float | None:
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper.value

    @property
    def note(self) -> str:
        """What did not finish beside what did: `1 oom`; what a mean lacks."""
        counts = Counter(run.record.status for run in self.unfinished if self.ours is not None)
        unfinished = (f"{count} {status}" for status, count in sorted(counts.items()))
        return ", ".join(filter(None, (*unfinished, self.lacking)))


@dataclass
class Exclusions:
    """Runs that were left out, each with its reason."""

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, run: Run, reason: str) -> None:
        self.reasons.setdefault(run.id, reason)


def make(table: Table, row: Row, column: Column, runs: Sequence[Run], excluded: Exclusions) -> tuple[Cell, list[str]]:
    """The cell and what forbids to average it (empty: nothing)."""
    paper = _published(table, row, column)
    fitting = [run for run in runs if run.fits({**row.where, **column.where})]
    fitting = _without_stand_ins(table, fitting, excluded)
    fitting = _without_tuning_runs(fitting, excluded)
    done = [run for run in fitting if run.record.status == "done"]
    unfinished = tuple(run for run in fitting if run.record.status in UNFINISHED)
    having = [(run, number) for run in done if (number := measures.value(run, column)) is not None]
    for run in done:
        if measures.value(run, column) is None and column.measure == "score":
            excluded.add(run, f"no {column.stage} score of {column.evaluation} {column.scorer}".rstrip())
    empty = Cell(row.name, column.name, "missing", unfinished=unfinished, paper=paper)
    if not having:
        return _without_value(empty, row, column), []
    used = [run for run, _ in having]
    if column.format == "count":
        return _the_count(empty, having)
    problems = identity.differences(used, [identity.averaged(run, column) for run in used])
    problems += _repeated_seeds(used)
    scale = SCALE.get(column.format, 1.0)
    by_seed = {run.record.seed: number * scale for run, number in having}
    ours = t_interval([by_seed[seed] for seed in sorted(by_seed)])
    return replace(empty, status="value", ours=ours, by_seed=by_seed, runs=tuple(used)), problems


def mean_of(row: Row, column: Column, parts: Sequence[Cell], paper: Published | None) -> Cell:
    """The mean of other cells, seed by seed: only of seeds that every part has; missing without any."""
    unfinished = tuple({run.id: run for part in parts for run in part.unfinished}.values())
    empty = Cell(row.name, column.name, "missing", unfinished=unfinished, paper=paper)
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
        empty, status="value", ours=t_interval([by_seed[seed] for seed in seeds]), by_seed=by_seed, runs=runs
    )


def _published(table: Table, row: Row, column: Column) -> Published | None:
    if not (table.paper and row.published and column.published):
        return None
    return published.lookup(table.paper, {"table": table.number, **row.published, **column.published})


def _without_stand_ins(table: Table, runs: list[Run], excluded: Exclusions) -> list[Run]:
    if not table.real_data:
        return runs
    for run in runs:
        if run.embedded:
            excluded.add(run, "embedded data stands in for the real set")
    return [run for run in runs if not run.embedded]


def _without_tuning_runs(runs: list[Run], excluded: Exclusions) -> list[Run]:
    """Where some runs carry a tuned choice, the others of the cell are the grid that it was chosen from."""
    if not any(run.record.tuning for run in runs):
        return runs
    for run in runs:
        if not run.record.tuning:
            excluded.add(run, "tuning run: its choice is reported, not its score")
    return [run for run in runs if run.record.tuning]


def _without_value(cell: Cell, row: Row, column: Column) -> Cell:
    counted = count(column.measure, {**column.where, **row.where})
    if counted is not None:
        return replace(cell, status="counted", ours=Interval(counted, float("nan"), float("nan"), 0))
    return replace(cell, status=_status(cell.unfinished)) if cell.unfinished else cell


def _status(unfinished: Sequence[Run]) -> str:
    """The commonest status; ties go to the worse one."""
    counts = Counter(str(run.record.status) for run in unfinished)
    return max(UNFINISHED, key=lambda status: (counts[status], -UNFINISHED.index(status)))


def _the_count(empty: Cell, having: Sequence[tuple[Run, float]]) -> tuple[Cell, list[str]]:
    """A count is no average: every run must have the same."""
    holders: dict[float, list[str]] = {}
    for run, number in having:
        holders.setdefault(number, []).append(run.id)
    problems = [] if len(holders) == 1 else ["; ".join(f"{n:.0f} in {', '.join(ids)}" for n, ids in holders.items())]
    value = Interval(having[0][1], float("nan"), float("nan"), len(having))
    return replace(empty, status="value", ours=value, runs=tuple(run for run, _ in having)), problems


def _repeated_seeds(runs: Sequence[Run]) -> list[str]:
    seeds: dict[int, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.record.seed, []).append(run.id)
    return [f"seed {seed} occurs in {', '.join(sorted(ids))}" for seed, ids in sorted(seeds.items()) if len(ids) > 1]
