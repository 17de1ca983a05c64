"""How an optimizer step is cut into forward and backward passes, and what happens where a pass does not fit.

The loss is a mean over the targets of the whole step, so any cut gives the same loss and the same gradient. How a step
is cut is therefore no part of a run's identity: it is decided by the device (runs/memory.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Parts = Sequence[Sequence[Any]]
"""The examples of one optimizer step, those of each pass by themselves."""


def cut(examples: Sequence[Any], budget: int | None, tokens: Callable[[Sequence[Any]], int]) -> Parts:
    """The examples in passes of at most `budget` tokens, longest first; a longer example is alone. None: one pass.

    The longest pass comes first, so that a cut that does not fit fails at once. `tokens` says what a pass computes.
    """
    parts: list[list[Any]] = [[]]
    for example in sorted(examples, key=lambda example: -example.length):
        if parts[-1] and budget is not None and tokens([*parts[-1], example]) > budget:
            parts.append([])
        parts[-1].append(example)
    return parts


def targets_of(parts: Parts) -> int:
    """Tokens (or examples) of a step that carry loss."""
    return sum(example.targets for part in parts for example in part)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: on a GPU, in Python, or in torch's allocator of main memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
