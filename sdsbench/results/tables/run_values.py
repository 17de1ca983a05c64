"""The number that one run puts into one column."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sdsbench.core.record import Score
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.runs import Run


def value(run: Run, column: Column) -> float | None:
    """The run's number, or None where it has none, or where a cost that it recorded is not its own."""
    if column.measure == "score":
        score = score_of(run, column)
        return None if score is None else score.value
    if is_cost(column.measure) and not own_cost(run, column.measure):
        return None
    special = _SPECIAL.get(column.measure)
    number = special(run) if special else run.flat.get(column.measure)
    return None if not isinstance(number, int | float) or math.isnan(number) else float(number)


def score_of(run: Run, column: Column) -> Score | None:
    """The score that a column shows: its scorer, or the evaluation's headline."""
    if column.measure != "score":
        return None
    return next((score for score in run.record.scores if shows(column, score, column.stage)), None)


def shows(column: Column, score: Score, stage: str) -> bool:
    """Whether a column shows such a score, taken at that stage."""
    wanted = score.scorer == column.scorer if column.scorer else score.headline
    return wanted and score.evaluation == column.evaluation and score.stage == stage


def is_cost(measure: str) -> bool:
    """Whether a measure says what a run costs: it then depends on the machine."""
    return measure.startswith(("seconds.", "memory.")) or measure in _SPECIAL


def own_cost(run: Run, measure: str) -> bool:
    """Whether the recorded cost is what the run costs alone.

    A run trained beside others in one process shares its time and its memory. The resident memory of a process is
    Python's, PyTorch's and that of earlier runs of its worker as well; only a device's own count is the run's.
    """
    if run.record.placing.get("group_size", 1) > 1:
        return False
    memory = run.record.memory
    return not measure.startswith("memory.") or (memory is not None and memory.kind == "cuda_allocated")


SHARED = 0.25
"""Cores that other work must hold on average before a table says so."""


def cores_of_others(run: Run) -> float:
    """Cores that other work held on average while a run was made, the most of its attempts; 0 where it is not known."""
    return max((attempt.others or 0.0 for attempt in run.record.attempts), default=0.0)


def _epoch_seconds(run: Run) -> float | None:
    """Training seconds per epoch of the training set; None for runs cut by train.max_steps."""
    epochs = run.flat.get("config.train.epochs")
    if not epochs or run.flat.get("config.train.max_steps") is not None:
        return None
    return run.record.seconds.train / epochs


def _init_share(run: Run) -> float | None:
    """Seconds spent on a method's start, as a share of the training that follows."""
    return run.record.seconds.init / run.record.seconds.train if run.record.seconds.train > 0 else None


_SPECIAL: dict[str, Callable[[Run], Any]] = {"epoch_seconds": _epoch_seconds, "init_share": _init_share}
