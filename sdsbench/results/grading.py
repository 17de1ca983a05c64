"""Grading stored answers again with the task's scorers, configured as in the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdsbench.core.record import Record
from sdsbench.tasks import base as tasks

Grader = Callable[[str, str], float | None]  # (target, response); None: undecided


def evaluation_of(record: Record, name: str) -> tasks.Evaluation | None:
    """The definition of one evaluation of the record's task; None if this version has no such task or evaluation."""
    try:
        task_class, config_class = tasks.lookup(record.task)
        found = task_class(config_class(**record.config["task"])).evaluations()
    except (KeyError, TypeError, ValueError):  # pydantic's ValidationError is a ValueError
        return None
    return next((evaluation for evaluation in found if evaluation.name == name), None)


def graders(evaluation: tasks.Generation) -> Mapping[str, Grader]:
    """The evaluation's scorers by name, as functions (gold answer, response) -> score or None (undecided)."""

    def grader(name: str) -> Grader:
        return lambda target, response: evaluation.scorers[name]((evaluation.row_of or row)(target), response)

    return {name: grader(name) for name in evaluation.scorers}


def row(target: str) -> dict[str, Any]:
    """A data row with the gold answer in the columns that the text tasks' scorers read."""
    return {"answer": target, "solution": f"\\boxed{{{target}}}"}
