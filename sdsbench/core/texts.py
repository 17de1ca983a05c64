"""Format values as on a command line, lists of names as in a sentence, and errors as one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def short_message(error: Exception) -> str:
    """A library's error as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def text(value: Any) -> str:
    """A value in Hydra's override syntax: null, true, [q_proj,v_proj], 0.001."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return str(value)


def is_text(value: str) -> bool:
    """Whether UTF-8 can encode a text; not if it has half of a surrogate pair (`\\ud800`, or an undecodable byte)."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def listed(names: Iterable[object], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`; empty without names. `word`: or, for values of which each run has one."""
    *first, last = [*map(str, names)] or [""]
    return f"{', '.join(first)} {word} {last}" if first else last


def span(numbers: Iterable[int]) -> str:
    """The smallest and the largest number: `25 to 35`, or `25` if they are equal."""
    first, last = min(found := [*numbers]), max(found)
    return str(first) if first == last else f"{first} to {last}"


def numbered(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: `0, 1, 2`, or `0 to 59` for more than five without a gap."""
    whole = len(numbers) > 5 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return span(numbers) if whole else ", ".join(map(str, numbers))


def counted(counts: Mapping[Any, int]) -> str:
    """Counts as text, in the given order: `2 done, 1 failed`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def number_of(count: int, name: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {name}{'s' * (count != 1)}"


def some_of(names: Sequence[str], count: int, between: str = ", ") -> str:
    """The first `count` names: `a, b, c`, or with `count` 2 `a, b and 1 more`."""
    return between.join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
