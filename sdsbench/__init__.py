"""sdsbench: model x method x task, many seeds, tables that can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdsbench.core.processor import set_defaults

if TYPE_CHECKING:
    from sdsbench.results.frames import load_runs, load_samples, load_scores, load_steps

set_defaults()

__all__ = ["load_runs", "load_samples", "load_scores", "load_steps"]


def __getattr__(name: str) -> Any:
    """pandas is imported when a frame is first asked for, not by `sdsbench --help`."""
    if name not in __all__:
        raise AttributeError(f"module 'sdsbench' has no attribute {name!r}")
    from sdsbench.results import frames

    return getattr(frames, name)
