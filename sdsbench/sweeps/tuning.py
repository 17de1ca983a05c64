"""Which grid point a tuned cell runs with: decided from records alone, the same way wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sdsbench.core.record import Record, Score, Tuning
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

    Best is highest, of a loss lowest.
    A grid point with a failed run has no score. Of equal scores the smaller value wins. The mean validation loss of
    every grid point is kept beside the scores; it chooses nothing.
    """
    tried = window(cell, record_of)
    records = [[record_of(identity) for identity in cell.tuning[position]] for position in tried]
    flat = [record for row in records for record in row]
    if any(not _ended(record) for record in flat):
        return None
    scores = [_mean([_headline(record) for record in row if record is not None]) for row in records]
    best = _best(cell, tried, scores, _sign(flat))
    if best is None:
        return TunedChoice(None, None)
    losses = [_mean([_loss(record) for record in row if record is not None]) for row in records]
    headlines = [score for record in flat if record is not None for score in _deciding(record)]
    return TunedChoice(
        best,
        Tuning(
            key=cell.key,
            grid=[cell.grid[position] for position in tried],
            budget=len(flat),
            seeds=cell.seeds,
            chosen=cell.grid[best],
            scores=scores,
            evaluation="+".join(dict.fromkeys(score.evaluation for score in headlines)),
            scorer="+".join(dict.fromkeys(score.scorer for score in headlines)),
            losses=losses if any(loss is not None for loss in losses) else None,
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
        records = {position: [record_of(identity) for identity in cell.tuning[position]] for position in tried}
        if any(not _ended(record) for row in records.values() for record in row):
            return tried
        scores = [_mean([_headline(record) for record in row if record is not None]) for row in records.values()]
        best = _best(cell, tried, scores, _sign(record for row in records.values() for record in row))
        if best == tried.start and tried.start > 0 and cell.extend:
            tried = range(tried.start - 1, tried.stop)
        elif best == tried.stop - 1 and tried.stop < len(cell.grid) and cell.extend:
            tried = range(tried.start, tried.stop + 1)
        else:
            return tried


def _best(cell: TunedCell, tried: range, scores: list[float | None], sign: float) -> int | None:
    ranked = sorted(
        (-sign * score, cell.grid[position], position)
        for position, score in zip(tried, scores, strict=True)
        if score is not None
    )
    return ranked[0][2] if ranked else None


def _ended(record: Record | None) -> bool:
    return record is not None and record.status in ENDED


def _headline(record: Record) -> float | None:
    """Mean of the headline scores on validation rows after training; None for a run that failed."""
    return _mean([score.value for score in _deciding(record)]) if record.status == "done" else None


def _deciding(record: Record) -> list[Score]:
    """The scores that a value is chosen by: what a model retains beside them chooses nothing."""
    return [s for s in record.scores if s.headline and s.stage == "validation" and not s.retention]


def _sign(records: Iterable[Record | None]) -> float:
    """1 where more is better, -1 where less is (a loss)."""
    lower = any(score.better == "lower" for record in records if record is not None for score in _deciding(record))
    return -1.0 if lower else 1.0


def _loss(record: Record) -> float | None:
    return record.losses.validation if record.status == "done" and record.losses else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
