"""Which grid point a tuned cell runs with: decided from records alone, the same way wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sdsbench.core.record import Record, Score, Tuning, equal_scores
from sdsbench.sweeps.plan import TunedCell

ENDED = ("done", "failed", "oom")
"""Statuses that stay until someone asks for a retry."""


RecordOf = Callable[[str], Record | None]


@dataclass(frozen=True)
class TunedChoice:
    """The chosen grid point; `position` is None where every tuning run failed."""

    position: int | None
    tuning: Tuning | None


def choose(cell: TunedCell, record_of: RecordOf) -> TunedChoice | None:
    """The grid point with the best mean headline score on validation rows; None while tuning runs are unfinished.

    Best is highest, of a loss lowest. A grid point with a failed run has no score. Of equal scores the one with the
    lowest mean validation loss wins where every one of them has it; what is left is decided by the smaller value.
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
    """Positions of the grid that are to be tried: the declared ones, and one more beyond an end that is best so far.

    The same rule for every method: the grid grows until the best value lies inside it or `tune.extend` is used up. A
    value beyond which every run fails is inside.
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
    """What the tuning runs of the positions that were tried came to; `best` is None where every one failed."""

    records: list[Record]
    scores: list[float | None]
    losses: list[float | None]
    best: int | None


def _outcome(cell: TunedCell, tried: range, record_of: RecordOf) -> _Outcome | None:
    """None while a run of them is unfinished."""
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
    """The position that `choose` names, of those tried; `sign` is 1 where more is better."""
    known = [sign * score for score in scores if score is not None]
    if not known:
        return None
    best = sign * max(known)
    among = [i for i, score in enumerate(scores) if equal_scores(score, best)]
    by_loss = all(losses[i] is not None for i in among)
    first = min(among, key=lambda i: (losses[i] if by_loss else 0.0, cell.grid[tried[i]]))
    return tried[first]


def _means(records: list[list[Record]], number: Callable[[Record], float | None]) -> list[float | None]:
    """Of each grid point's runs; None where one of them has none."""
    return [_mean([number(record) for record in row]) for row in records]


def _headline(record: Record) -> float | None:
    """Mean of the headline scores on validation rows after training; None for a run that failed."""
    return _mean([score.value for score in _deciding(record)]) if record.status == "done" else None


def _deciding(record: Record) -> list[Score]:
    """The scores that a value is chosen by: what a model retains beside them chooses nothing."""
    return [s for s in record.scores if s.headline and s.stage == "validation" and not s.retention]


def _sign(records: Iterable[Record]) -> float:
    """1 where more is better, -1 where less is (a loss)."""
    lower = any(score.better == "lower" for record in records for score in _deciding(record))
    return -1.0 if lower else 1.0


def _loss(record: Record) -> float | None:
    return record.losses.validation if record.status == "done" and record.losses else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
