"""How an optimizer step is split into forward and backward passes (micro-batches) that fit into memory.

The loss is a mean over the targets of the whole step, so every split gives the same loss and gradient up to rounding.
The split is therefore not part of a run's identity; the device's memory decides it (runs/memory.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Parts = Sequence[Sequence[Any]]
"""The examples of one optimizer step, one sequence of examples for each pass."""


def cut(examples: Sequence[Any], budget: int | None, tokens: Callable[[Sequence[Any]], int]) -> Parts:
    """Split examples into passes of at most `budget` tokens (None: one pass); a longer example gets its own pass.

    Long examples come first, so that a split that does not fit into memory fails in its first pass. `tokens` counts the
    tokens that a pass computes.
    """
    parts: list[list[Any]] = [[]]
    for example in sorted(examples, key=lambda example: -example.length):
        if parts[-1] and budget is not None and tokens([*parts[-1], example]) > budget:
            parts.append([])
        parts[-1].append(example)
    return parts


def divisors(parts: Parts, mean_over: int | None) -> list[int]:
    """For each pass, the number that divides its summed loss so that the quotients add up to the loss of the step.

    The loss of a step is the mean over all its targets. With `mean_over`, it is the mean over groups of `mean_over`
    consecutive examples, each averaged over its own targets; the caller makes sure that no pass spans two groups.
    """
    if mean_over is None:
        return [targets_of(parts)] * len(parts)
    groups: list[list[Sequence[Any]]] = [[]]
    for part in parts:
        if sum(map(len, groups[-1])) >= mean_over:
            groups.append([])
        groups[-1].append(part)
    return [len(groups) * targets_of(group) for group in groups for _ in group]


def targets_of(parts: Parts) -> int:
    """Tokens (or examples) of a step that carry loss."""
    return sum(example.targets for part in parts for example in part)


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out: on a GPU, in Python, or in torch's allocator of main memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
