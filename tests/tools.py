"""Helpers for tests of several parts."""

from __future__ import annotations

from sdsbench.data import catalogue
from sdsbench.runs.run_context import RunContext
from sdsbench.tasks import base as tasks

QUIET = RunContext(log=lambda _: None)
"""A run context that discards log messages."""


def reads_own_files(task: str) -> bool:
    """Whether a task reads only a user's own files. tests/tasks/test_pairs.py and test_labels.py test such tasks."""
    tasks.lookup(task)
    return task in catalogue.names() and catalogue.get(task).own
