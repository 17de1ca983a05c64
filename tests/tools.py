"""What many tests share."""

from __future__ import annotations

from sdsbench.runs.run_context import RunContext

QUIET = RunContext(log=lambda _: None)
"""The surroundings of a run that tells nobody what it does."""
