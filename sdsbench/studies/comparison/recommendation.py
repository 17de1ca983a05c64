"""Which method to use, in one sentence with its uncertainty: from the table of a comparison and what its runs cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.core.texts import listed
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.compare import Compared, Difference
from sdsbench.results.tables.compare import compare as compared_with
from sdsbench.results.tables.contrast import MIN_SEEDS
from sdsbench.results.tables.definition import Column, Row
from sdsbench.results.tables.run_values import own_cost
from sdsbench.results.tables.runs import Run
from sdsbench.sweeps.best import rank_of


@dataclass(frozen=True)
class Candidate:
    """A method that cannot be told from the best one, or is it alone."""

    row: Row
    cell: TableCell
    seconds: float | None  # median training time of its runs alone; None where none of them had the process to itself

    @property
    def rate(self) -> float | None:
        """The learning rate that its runs were made with; None where they differ."""
        rates = {run.record.lr for run in self.cell.runs}
        return rates.pop() if len(rates) == 1 else None

    @property
    def best_run(self) -> Run:
        """The run with the best headline scores, as `export --best` ranks them; of equal ones the smallest seed."""

        def rank(run: Run) -> tuple[float, int]:
            found = rank_of(run.record)
            return (float("-inf") if found is None else found), -run.record.seed

        return max(self.cell.runs, key=rank)


@dataclass(frozen=True)
class Recommendation:
    """The answer for one column; `chosen` is None where the runs decide nothing."""

    column: Column
    sentence: str
    chosen: Candidate | None = None


def recommend(built: Built, reference: str) -> list[Recommendation]:
    """One answer a column: the cheapest of the methods that cannot be told from its best one.

    Raises Refused where no run of `reference` is in the table.
    """
    compared = compared_with(built, reference)
    return [_of_column(built, column, compared) for column in built.table.columns if not column.parts]


def _of_column(built: Built, column: Column, compared: Compared) -> Recommendation:
    cells = [(row, built.cells[row.name, column.name]) for row in built.table.rows]
    usable = [(row, cell) for row, cell in cells if cell.ours is not None and not cell.apart]
    best = [_candidate(row, cell) for row, cell in usable if cell.mark in ("best", "among_best")]
    few = [row.title for row, cell in usable if len(cell.by_seed) < MIN_SEEDS]
    if not best:
        same = (
            "no test tells runs apart that score the same" if len(usable) > 1 else "not two methods have finished runs"
        )
        reason = f"fewer than {MIN_SEEDS} seeds of {listed(few)}" if few else same
        return Recommendation(column, f"{_where(column)}: nothing can be said yet: {reason}.")
    learned = [candidate for candidate in best if len(candidate.cell.unlearned) < len(candidate.cell.runs)]
    if not learned:
        return Recommendation(column, f"{_where(column)}: no method learned the task: no run is above its floor.")
    chosen = _cheapest(column, learned)
    words = [_told(column, learned, chosen), _price(learned, chosen), _against(compared, column, chosen)]
    return Recommendation(column, f"{_where(column)}: {' '.join(filter(None, words))} {_take(chosen)}", chosen)


def _candidate(row: Row, cell: TableCell) -> Candidate:
    own = [run.record.seconds.train for run in cell.runs if own_cost(run, "seconds.train")]
    return Candidate(row, cell, statistics.median(own) if own else None)


def _cheapest(column: Column, candidates: Sequence[Candidate]) -> Candidate:
    """By training time where every candidate has one, else by trained parameters; of equals the better score."""
    timed = all(candidate.seconds is not None for candidate in candidates)
    sign = -1 if column.better == "higher" else 1

    def price(candidate: Candidate) -> tuple[float, float]:
        assert candidate.cell.ours is not None
        trained = candidate.cell.runs[0].record.parameters
        size = float(trained.trainable) if trained else float("inf")
        return (candidate.seconds or 0.0) if timed else size, sign * candidate.cell.ours.mean

    return min(candidates, key=price)


def _told(column: Column, candidates: Sequence[Candidate], chosen: Candidate) -> str:
    score, digits = chosen.cell.ours, column.digits
    assert score is not None
    if len(candidates) == 1:
        return f"{chosen.row.title} is best, {score.mean:{digits}} [{score.low:{digits}}, {score.high:{digits}}]."
    return f"{listed([candidate.row.title for candidate in candidates])} cannot be told apart."


def _price(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    others = [candidate for candidate in candidates if candidate is not chosen]
    if not others or chosen.seconds is None or any(other.seconds is None for other in others):
        return ""
    dearest = max(others, key=lambda other: other.seconds or 0.0)
    ratio = (dearest.seconds or 0.0) / chosen.seconds if chosen.seconds else 1.0
    if ratio < 1.05:
        return "They cost the same."
    return f"{chosen.row.title} trains {ratio:.1f}x faster than {dearest.row.title}."


def _against(compared: Compared, column: Column, chosen: Candidate) -> str:
    """The chosen method's difference to the reference, with its interval; empty for the reference itself."""
    for difference in compared.differences:
        if difference.column is column and difference.row is chosen.row and difference.contrast is not None:
            return _interval(difference)
    return ""


def _interval(difference: Difference) -> str:
    assert difference.contrast is not None and difference.reference is not None
    found, digits = difference.contrast.comparison, difference.column.digits
    if found.low != found.low:
        return ""
    interval = f"[{found.low:{digits}}, {found.high:{digits}}]"
    return f"Against {difference.reference.title}: {found.difference:+{digits}} {interval}."


def _take(chosen: Candidate) -> str:
    rate = f" at train.lr={chosen.rate:g}" if chosen.rate is not None else ""
    return f"Take {chosen.row.title}{rate}."


def _where(column: Column) -> str:
    return f"{column.group}, {column.title}" if column.group else column.title
