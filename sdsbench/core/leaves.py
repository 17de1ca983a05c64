"""Nested plain values under dotted keys."""

from __future__ import annotations

from typing import Any


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts; lists and empty dicts count as leaves."""
    if not isinstance(tree, dict) or not tree:
        return [(prefix, tree)]
    found: list[tuple[str, Any]] = []
    _collect(tree, f"{prefix}." if prefix else "", found)
    return found


def _collect(tree: dict[Any, Any], prefix: str, found: list[tuple[str, Any]]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            _collect(value, f"{prefix}{key}.", found)
        else:
            found.append((f"{prefix}{key}", value))
