"""Choose the grid point of a tuned cell from records alone, so that every process makes the same choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sdsbench.core.record import Record, Score, Tuning, equal_scores
from sdsbench.sweeps.plan import TunedCell

ENDED = ("done", "failed", "oom")
"""Statuses that only a retry can change."""


RecordOf = Callable[[str], Record | None]


@dataclass(frozen=True)
class TunedChoice:
    """The chosen grid point; `position` and `tuning` are None if every grid point has a failed run."""

    position: int | None
    tuning: Tuning | None


def choose(cell: TunedCell, record_of: RecordOf) -> TunedChoice | None:
    """The grid point with the best mean headline score on validation rows; None while tuning runs are unfinished.

    The best score is the highest, or the lowest if the score is a loss. A grid point with a failed run has no score.
    Ties are decided by the lowest mean validation loss if every tied point has one, and then by the smaller value.
    """
    tried = window(cell, record_of)
    outcome = _outcome(cell, tried, record_of)
    if outcome is None:
        return None
    if outcome.best is None:
        return TunedChoice(None, None)
    headlines = [score for record in outcome.records for score in _deciding(record)]
    return TunedChoice(
        outcome.best,
        Tuning(
            key=cell.key,
            grid=[cell.grid[position] for position in tried],
            budget=len(outcome.records),
            seeds=cell.seeds,
            chosen=cell.grid[outcome.best],
            scores=outcome.scores,
            evaluation="+".join(dict.fromkeys(score.evaluation for score in headlines)),
            scorer="+".join(dict.fromkeys(score.scorer for score in headlines)),
            losses=outcome.losses if any(loss is not None for loss in outcome.losses) else None,
            declared=[cell.grid[position] for position in cell.declared] if cell.extend else None,
            extend=cell.extend,
        ),
    )


def window(cell: TunedCell, record_of: RecordOf) -> range:
    """Grid positions to try: the declared ones, and one more beyond an end whose value is the best so far.

    The rule is the same for every method: the grid grows until its best value is not at an end or `tune.extend` is used
    up. A best value counts as inside if the next value beyond it was tried and failed.
    """
    tried = cell.declared
    while True:
        outcome = _outcome(cell, tried, record_of)
        if outcome is None:
            return tried
        if outcome.best == tried.start and tried.start > 0 and cell.extend:
            tried = range(tried.start - 1, tried.stop)
        elif outcome.best == tried.stop - 1 and tried.stop < len(cell.grid) and cell.extend:
            tried = range(tried.start, tried.stop + 1)
        else:
            return tried


@dataclass(frozen=True)
class _Outcome:
    """Results of the tuning runs at the tried positions; `best` is None if every position has a failed run."""

    records: list[Record]
    scores: list[float | None]
    losses: list[float | None]
    best: int | None


def _outcome(cell: TunedCell, tried: range, record_of: RecordOf) -> _Outcome | None:
    """Results of the tuning runs at these positions; None while one of them is unfinished."""
    found = [[record_of(identity) for identity in cell.tuning[position]] for position in tried]
    records = [[record for record in row if record is not None and record.status in ENDED] for row in found]
    flat = [record for row in records for record in row]
    if len(flat) < sum(map(len, found)):
        return None
    scores, losses = _means(records, _headline), _means(records, _loss)
    return _Outcome(flat, scores, losses, _best(cell, tried, scores, losses, _sign(flat)))


def _best(
    cell: TunedCell, tried: range, scores: list[float | None], losses: list[float | None], sign: float
) -> int | None:
    """The best of the tried positions by the rule of `choose`; `sign` is 1 if higher scores are better, else -1."""
    known = [sign * score for score in scores if score is not None]
    if not known:
        return None
    best = sign * max(known)
    among = [i for i, score in enumerate(scores) if equal_scores(score, best)]
    by_loss = all(losses[i] is not None for i in among)
    first = min(among, key=lambda i: (losses[i] if by_loss else 0.0, cell.grid[tried[i]]))
    return tried[first]


def _means(records: list[list[Record]], number: Callable[[Record], float | None]) -> list[float | None]:
    """Mean of `number` over the runs of each grid point; None if one of them has no such number."""
    return [_mean([number(record) for record in row]) for row in records]


def _headline(record: Record) -> float | None:
    """Mean of the headline scores on validation rows after training; None for a run that failed."""
    return _mean([score.value for score in _deciding(record)]) if record.status == "done" else None


def _deciding(record: Record) -> list[Score]:
    """The scores that decide the choice: headline scores on validation rows, without those of retention."""
    return [s for s in record.scores if s.headline and s.stage == "validation" and not s.retention]


def _sign(records: Iterable[Record]) -> float:
    """1 if higher scores are better, -1 if lower ones are (a loss)."""
    lower = any(score.better == "lower" for record in records for score in _deciding(record))
    return -1.0 if lower else 1.0


def _loss(record: Record) -> float | None:
    return record.losses.validation if record.status == "done" and record.losses else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
