"""Nested plain values under dotted keys."""

from __future__ import annotations

from typing import Any


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts; lists are leaves, and so is a dict without keys."""
    found: list[tuple[str, Any]] = []
    _collect(tree, prefix, found)
    return found


def _collect(tree: Any, prefix: str, found: list[tuple[str, Any]]) -> None:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            _collect(value, f"{prefix}.{key}" if prefix else str(key), found)
    else:
        found.append((prefix, tree))
