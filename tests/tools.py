"""What many tests share."""

from __future__ import annotations

from sdsbench.data import catalogue
from sdsbench.runs.run_context import RunContext
from sdsbench.tasks import base as tasks

QUIET = RunContext(log=lambda _: None)
"""The surroundings of a run that tells nobody what it does."""


def reads_own_files(task: str) -> bool:
    """Whether a task reads a user's files and nothing of the catalogue (tests/tasks/test_pairs.py, test_labels.py)."""
    tasks.lookup(task)
    return task in catalogue.names() and catalogue.get(task).own
