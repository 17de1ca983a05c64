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
    records = [[record_of(identity) for identity in cell.tuning[position]] for position in tried]
    flat = [record for row in records for record in row]
    if any(not _ended(record) for record in flat):
        return None
    scores, losses = _means(records, _headline), _means(records, _loss)
    best = _best(cell, tried, scores, losses, _sign(flat))
    if best is None:
        return TunedChoice(None, None)
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
        records = [[record_of(identity) for identity in cell.tuning[position]] for position in tried]
        flat = [record for row in records for record in row]
        if any(not _ended(record) for record in flat):
            return tried
        best = _best(cell, tried, _means(records, _headline), _means(records, _loss), _sign(flat))
        if best == tried.start and tried.start > 0 and cell.extend:
            tried = range(tried.start - 1, tried.stop)
        elif best == tried.stop - 1 and tried.stop < len(cell.grid) and cell.extend:
            tried = range(tried.start, tried.stop + 1)
        else:
            return tried


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


def _means(records: list[list[Record | None]], number: Callable[[Record], float | None]) -> list[float | None]:
    """Of each grid point's runs; None where one of them has none."""
    return [_mean([number(record) for record in row if record is not None]) for row in records]


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
