"""The nearest correct spelling of a mistyped key or value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or nothing if no known word is close.

    A key is also compared by its last part, so that `rank` finds `method.rank`.
    """
    words = sorted(set(known), key=lambda name: (not name.startswith("protocol."), name))  # of equals the last wins
    last_parts = {candidate.rsplit(".", 1)[-1]: candidate for candidate in words}
    if word in last_parts:
        return f"Did you mean {last_parts[word]!r}?"
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not close:
        last = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last_parts), n=1, cutoff=0.75)
        close = [last_parts[part] for part in last]
    return f"Did you mean {close[0]!r}?" if close else ""
