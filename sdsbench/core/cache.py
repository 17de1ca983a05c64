"""The machine's cache folder: dequantised weights, SVD factors. Everything in it can be rebuilt."""

from __future__ import annotations

import os
from pathlib import Path

from sdsbench.core.errors import Unavailable


def cache_folder() -> Path:
    """SDSBENCH_CACHE, else XDG_CACHE_HOME/sdsbench, else ~/.cache/sdsbench; made if absent.

    Raises Unavailable where it cannot be made or written.
    """
    base, shared = os.environ.get("SDSBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else (Path(shared) if shared else Path.home() / ".cache") / "sdsbench"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise Unavailable(f"no cache folder ({error}). {_ADVICE}") from None
    if not os.access(folder, os.W_OK):
        raise Unavailable(f"the cache folder {folder} cannot be written. {_ADVICE}")
    return folder


_ADVICE = "Set SDSBENCH_CACHE to a folder that can: weights that packages bring are made into plain files there."
