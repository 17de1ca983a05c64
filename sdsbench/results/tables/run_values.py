"""The number that one run contributes to one column."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sdsbench.core.record import Score
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.loaded_runs import Run


def value(run: Run, column: Column) -> float | None:
    """The run's number; None if it has none, or if the column is a cost that was not measured for this run alone."""
    if column.measure == "score":
        score = score_of(run, column)
        return None if score is None else score.value
    if is_cost(column.measure) and not own_cost(run, column.measure):
        return None
    special = _SPECIAL.get(column.measure)
    number = special(run) if special else run.flat.get(column.measure)
    return None if not isinstance(number, int | float) or math.isnan(number) else float(number)


def score_of(run: Run, column: Column) -> Score | None:
    """The run's score for a column: by the column's scorer, or the evaluation's headline."""
    if column.measure != "score":
        return None
    return next((score for score in run.record.scores if shows(column, score, column.stage)), None)


def shows(column: Column, score: Score, stage: str) -> bool:
    """Whether a column shows this score at the given stage."""
    wanted = score.scorer == column.scorer if column.scorer else score.headline
    return wanted and score.evaluation == column.evaluation and score.stage == stage


def is_cost(measure: str) -> bool:
    """Whether a measure is a cost, which depends on the machine."""
    return measure.startswith(("seconds.", "memory.")) or measure in _SPECIAL


def own_cost(run: Run, measure: str) -> bool:
    """Whether the recorded cost was measured for this run alone.

    Runs trained side by side in one process share its time and memory. A process's resident memory also includes
    Python, PyTorch and earlier runs of the worker; only the memory counter of a device belongs to the run.
    """
    if run.record.placing.get("group_size", 1) > 1:
        return False
    memory = run.record.memory
    return not measure.startswith("memory.") or (memory is not None and memory.kind == "cuda_allocated")


SHARED = 0.25
"""A table mentions other work on the machine if it used at least this many cores on average."""


def cores_of_others(run: Run) -> float:
    """Average cores used by other work during the run, maximum over its attempts; 0 if unknown."""
    return max((attempt.others or 0.0 for attempt in run.record.attempts), default=0.0)


def _epoch_seconds(run: Run) -> float | None:
    """Training seconds per epoch of the training set; None for runs cut by train.max_steps."""
    epochs = run.flat.get("config.train.epochs")
    if not epochs or run.flat.get("config.train.max_steps") is not None:
        return None
    return run.record.seconds.train / epochs


def _init_share(run: Run) -> float | None:
    """Seconds of the method's initialisation divided by those of training."""
    return run.record.seconds.init / run.record.seconds.train if run.record.seconds.train > 0 else None


_SPECIAL: dict[str, Callable[[Run], Any]] = {"epoch_seconds": _epoch_seconds, "init_share": _init_share}
