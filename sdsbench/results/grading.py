"""A task's own graders for stored answers: what the task, as the record configured it, says of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdsbench.core.record import Record
from sdsbench.tasks import base as tasks

Grader = Callable[[str, str], float | None]  # (target, response); None: undecided


def evaluation_of(record: Record, name: str) -> tasks.Evaluation | None:
    """The definition of one evaluation of the record's task; None where this version has no such task or evaluation."""
    try:
        task_class, config_class = tasks.lookup(record.task)
        found = task_class(config_class(**record.config["task"])).evaluations()
    except (KeyError, TypeError, ValueError):  # ValueError: pydantic's too
        return None
    return next((evaluation for evaluation in found if evaluation.name == name), None)


def graders(evaluation: tasks.Generation) -> Mapping[str, Grader]:
    """Its scorers by name, as functions of the gold answer and the text."""

    def grader(name: str) -> Grader:
        return lambda target, response: evaluation.scorers[name](row(target), response)

    return {name: grader(name) for name in evaluation.scorers}


def row(target: str) -> dict[str, Any]:
    """The gold answer where the scorers of the text tasks look for it."""
    return {"answer": target, "solution": f"\\boxed{{{target}}}"}
