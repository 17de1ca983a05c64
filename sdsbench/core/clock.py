"""Durations in seconds, formatted for people and read from their texts."""

from __future__ import annotations

import math
import re

from sdsbench.core.errors import Problem

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float | None:
    """The seconds of `4h`, `90m`, `1.5h`, `2d` or `45s`; None for other texts and for 0."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    return seconds if 0 < seconds < math.inf else None


def not_a_time(key: str, text: str) -> Problem:
    """The problem of a text, given by the user as `key`, that `seconds_of` does not read."""
    return Problem(key, text[:40], "a time above 0 such as 30m, 4h or 2d")


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """`35 s`, `4.2 min`, `12 h`, `3.5 days`: two significant digits."""
    units = (("s", 1), ("min", 60), ("h", 3600), ("days", 86400))
    name, size = next(((name, size) for name, size in units if seconds < 99.5 * size), units[-1])
    return f"{two_digits(seconds / size)} {name}"


def two_digits(value: float) -> str:
    """A number with two significant digits, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}" if value < 1e6 else f"{value:.1e}"
