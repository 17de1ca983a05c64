"""Which grid point a tuned cell runs with: decided from records alone, the same way wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdsbench.core.record import Record, Tuning
from sdsbench.sweeps.plan import Cell

ENDED = ("done", "failed", "oom")
"""Statuses that stay until someone asks for a retry."""


@dataclass(frozen=True)
class Choice:
    """The chosen grid point; `position` is None where every tuning run failed."""

    position: int | None
    tuning: Tuning | None


def choose(cell: Cell, record_of: Callable[[str], Record | None]) -> Choice | None:
    """The grid point with the best mean headline score on validation rows; None while tuning runs are unfinished.

    A grid point with a failed run has no score. Of equal scores the smaller value wins.
    """
    records = [[record_of(identity) for identity in identities] for identities in cell.tuning]
    flat = [record for row in records for record in row]
    if any(record is None or record.status not in ENDED for record in flat):
        return None
    scores = [_mean([_headline(record) for record in row if record is not None]) for row in records]
    ranked = sorted(
        (-score, cell.grid[position], position) for position, score in enumerate(scores) if score is not None
    )
    if not ranked:
        return Choice(None, None)
    best = ranked[0][2]
    headlines = [score for record in flat if record is not None for score in record.scores if score.headline]
    return Choice(
        best,
        Tuning(
            key=cell.key,
            grid=cell.grid,
            budget=len(flat),
            seeds=cell.seeds,
            chosen=cell.grid[best],
            scores=scores,
            evaluation="+".join(dict.fromkeys(score.evaluation for score in headlines)),
            scorer="+".join(dict.fromkeys(score.scorer for score in headlines)),
        ),
    )


def _headline(record: Record) -> float | None:
    """Mean of the headline scores on validation rows after training; None for a run that failed."""
    values = [score.value for score in record.scores if score.headline and score.stage == "validation"]
    return _mean(list(values)) if record.status == "done" else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
