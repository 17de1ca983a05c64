"""Pause Python's garbage collection while many long-lived objects are created."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause collection in one block or function. Collections scan all live objects: a third of the time to read 10,000
    records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Pause collection during imports and freeze the new objects, so that later collections skip them too; garbage
    created inside is never freed.

    torch and transformers create some hundred thousand permanent objects; scanning them repeatedly costs a fifth of the
    start-up time.
    """
    with collection_paused():
        try:
            yield
        finally:
            gc.freeze()
