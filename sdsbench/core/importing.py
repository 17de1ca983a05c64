"""Imports of large libraries without the garbage collector, which takes a fifth of a start-up otherwise."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Inside: no garbage is looked for; what was made stays out of every later search.

    torch and transformers make some hundred thousand objects, all of which stay until the end, and the collector looks
    through them again and again while they grow. For imports alone: other garbage made inside would never be freed.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
