"""The machine's cache folder: dequantised weights, SVD factors. Everything in it can be rebuilt."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """SDSBENCH_CACHE, else XDG_CACHE_HOME/sdsbench, else ~/.cache/sdsbench; made if absent."""
    base = os.environ.get("SDSBENCH_CACHE")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sdsbench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
