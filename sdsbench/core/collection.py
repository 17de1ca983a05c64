"""Python's garbage collection, paused while many small objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """For one block or function. A collection looks at all that is alive: a third of the time of 10,000 records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """The same for imports alone: what was made stays out of every later search too, so no garbage may be made inside.

    torch and transformers make some hundred thousand objects, all of which stay until the end, and the collector looks
    through them again and again while they grow: a fifth of a start-up.
    """
    with collection_paused():
        try:
            yield
        finally:
            gc.freeze()
