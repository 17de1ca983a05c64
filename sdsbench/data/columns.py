"""Checks of a column's cells, and the check of all rows of a split before the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from sdsbench.core.errors import Unavailable

SHOWN = 5  # most rows that an error message lists
LONGEST = 80  # characters of a value that an error message shows


@dataclass(frozen=True)
class ColumnCheck:
    """`holds(cell, row)` tells whether a cell is usable; `accepted` describes usable cells in error messages.

    `text`: read this column of a CSV file as text, without guessing numbers. `counted`: cells are class numbers from 0.
    """

    accepted: str
    holds: Callable[[Any, Mapping[str, Any]], bool]
    text: bool = True
    counted: bool = False


PRESENT = ColumnCheck("a value (not null)", lambda value, _: value is not None, text=False)
TEXT = ColumnCheck("text that is not empty", lambda value, _: isinstance(value, str) and bool(value.strip()))
TEXT_OR_EMPTY = ColumnCheck("text, which may be empty", lambda value, _: isinstance(value, str))


def _has_bytes(value: Any, _: Mapping[str, Any]) -> bool:
    return bool(value.get("bytes")) if isinstance(value, dict) else hasattr(value, "tobytes")


IMAGE = ColumnCheck("an image with its bytes, as `datasets` stores it", _has_bytes, text=False)


def class_number(names: Sequence[str]) -> ColumnCheck:
    """Check for a class number; `names` are the class names in the order of their numbers."""
    last = len(names) - 1
    meaning = ", ".join(f"{number} {name}" for number, name in enumerate(names) if str(number) != name)
    words = f"a whole number from 0 to {last}" + (f" ({meaning})" if meaning and last < 10 else "")
    return ColumnCheck(words, lambda value, _: _whole(value) and 0 <= value <= last, text=False, counted=True)


def number(low: float, high: float) -> ColumnCheck:
    """Check for a finite number within bounds."""

    def holds(value: Any, _: Mapping[str, Any]) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return ColumnCheck(f"a number from {low:g} to {high:g}", holds, text=False)


def check(rows: Any, columns: Mapping[str, ColumnCheck], named_by: str = "") -> None:
    """Check every row once.

    Raises Unavailable that names the set, row numbers (from 1), values and what is accepted, or the missing columns.
    `named_by` maps columns to the configuration keys that name them.
    """
    if not columns:
        return
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise Unavailable(
            f"data set {rows.dataset}, split {rows.split}, source {rows.source}: missing column(s) "
            f"{', '.join(missing)}; found {', '.join(rows[0])}; accepted: {', '.join(columns)}"
            + (f". {named_by}" if named_by else "")
        )
    wrong = wrong_cells(rows, columns)
    if not wrong:
        return
    lines = [
        f"  row {rows.indices[position] + 1}, column {name}: {shown(value)}; accepted: {columns[name].accepted}"
        for position, name, value in wrong[:SHOWN]
    ]
    more = [f"  and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    count = len({position for position, _, _ in wrong})
    head = f"{count} of {len(rows)} rows cannot be used" if count > 1 else f"1 of {len(rows)} rows cannot be used"
    advice = _counted_from_one(wrong, columns)
    raise Unavailable(
        "\n".join(
            [f"data set {rows.dataset}, split {rows.split}, source {rows.source}: {head}:", *lines, *more, *advice]
        )
    )


def wrong_cells(rows: Any, columns: Mapping[str, ColumnCheck]) -> list[tuple[int, str, Any]]:
    """(row position, column, value) of every unusable cell."""
    found: list[tuple[int, str, Any]] = []
    if not columns:  # without columns there is nothing to check
        return found
    for position, row in enumerate(rows.cells(list(columns))):
        whole = {**dict.fromkeys(columns), **row}  # a generator of rows may leave a column out of some of them
        found += [(position, name, whole[name]) for name in columns if not columns[name].holds(whole[name], whole)]
    return found


def shown(value: Any) -> str:
    """A value as error messages show it: shortened, and without the bytes of an image."""
    if isinstance(value, dict):
        value = {key: len(item) if isinstance(item, bytes) else item for key, item in value.items()}
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}... ({len(text)} characters)"


def _counted_from_one(wrong: Sequence[tuple[int, str, Any]], columns: Mapping[str, ColumnCheck]) -> list[str]:
    """Advice if every wrong cell equals the number of classes: the labels then probably start at 1."""
    counted = all(columns[name].counted for _, name, _ in wrong)
    if counted and all(_whole(value) and value > 0 and columns[name].holds(value - 1, {}) for _, name, value in wrong):
        return ["  If the classes are counted from 1: write label - 1."]
    return []


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
