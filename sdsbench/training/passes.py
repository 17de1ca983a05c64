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


def divisors(parts: Parts, mean_over: int | None) -> list[int]:
    """What divides the summed loss of each pass, so that their sum is the loss of the step.

    That is the mean over all targets; with `mean_over`, the mean of the means of so many examples each. Passes then lie
    in the order of the step's examples, and none crosses from one such group into the next.
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
    """Whether memory was short: on a GPU, in Python, or in torch's allocator of main memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
