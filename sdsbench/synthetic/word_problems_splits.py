"""Splits that cannot overlap: the split of a problem is a function of the problem.

A problem's canonical form (its template and its numbers, without names and objects) is hashed, and the hash says which
split it belongs to. No count and no seed can therefore carry a problem from one split to another, and the numbers of a
test problem were never seen with that template in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

# Of 20 equal parts. `pretrain` is for the text that models are made from; it overlaps with no split of a task.
PARTS: Mapping[str, range] = {
    "train": range(0, 10),
    "validation": range(10, 13),
    "test": range(13, 16),
    "pretrain": range(16, 20),
}


def split_of(canonical: str) -> str:
    """The split that a canonical form belongs to."""
    part = int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big") % 20
    return next(split for split, parts in PARTS.items() if part in parts)


def generator(split: str, seed: int) -> np.random.Generator:
    """The stream of random numbers of one split and seed. Raises ValueError for an unknown split."""
    if split not in PARTS:
        raise ValueError(f"split={split!r}: accepted: {', '.join(PARTS)}")
    return np.random.default_rng([seed, list(PARTS).index(split)])


def one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    """One of the values, as rng.choice draws it, without making an array of them each time."""
    return values[int(rng.integers(len(values)))]


def distinct(draw: Callable[[], tuple[str, dict[str, str]]], count: int) -> Iterator[dict[str, str]]:
    """The first `count` rows of `draw` (key, row) whose keys differ.

    Raises ValueError when the generator has run dry: 1000 draws in a row brought nothing new.
    """
    seen: set[str] = set()
    misses = 0
    while len(seen) < count:
        key, row = draw()
        misses = misses + 1 if key in seen else 0
        if misses > 1000:
            raise ValueError(f"count={count}: accepted: at most about {len(seen)} rows, all that this generator knows")
        if key not in seen:
            seen.add(key)
            yield row
