"""The nearest correct spelling of a mistyped key or value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or nothing if no known word is close.

    A key is also compared by its last part, so that `rank` finds `method.rank`, and by the first letters of that part's
    words, so that `train.learning_rate` finds `train.lr`.
    """
    words = sorted(set(known), key=lambda name: (not name.startswith("protocol."), name))  # of equals the last wins
    last_parts = {candidate.rsplit(".", 1)[-1]: candidate for candidate in words}
    if word in last_parts:
        return f"Did you mean {last_parts[word]!r}?"
    last = word.rsplit(".", 1)[-1]
    initials = [
        name for part, name in last_parts.items() if last and (last == _initials(part) or part == _initials(last))
    ]
    if initials:
        return f"Did you mean {initials[0]!r}?"
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not close:
        close = [last_parts[part] for part in difflib.get_close_matches(last, list(last_parts), n=1, cutoff=0.75)]
    return f"Did you mean {close[0]!r}?" if close else ""


def _initials(words: str) -> str:
    """`lr` for `learning_rate`; empty for a single word."""
    return "".join(part[:1] for part in words.split("_")) if "_" in words else ""
