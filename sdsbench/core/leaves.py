"""Nested plain values under dotted keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts; lists are leaves, and so is a dict without keys."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
