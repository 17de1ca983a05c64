"""sdsbench: model x method x task, many seeds, tables that can be trusted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sdsbench.core.garbage_collection import collection_paused
from sdsbench.core.processor import set_defaults

if TYPE_CHECKING:
    from sdsbench.results.frames import load_runs, load_samples, load_scores, load_steps
    from sdsbench.runs.from_overrides import run
    from sdsbench.studies.comparison.comparison import compare

set_defaults()

__all__ = ["compare", "load_runs", "load_samples", "load_scores", "load_steps", "run"]
_HOMES = {"compare": "sdsbench.studies.comparison.comparison", "run": "sdsbench.runs.from_overrides"}


def __getattr__(name: str) -> Any:
    """torch and pandas are imported when a function is first asked for, not by `sdsbench --help`."""
    if name not in __all__:
        raise AttributeError(f"module 'sdsbench' has no attribute {name!r}")
    with collection_paused():
        return getattr(importlib.import_module(_HOMES.get(name, "sdsbench.results.frames")), name)
