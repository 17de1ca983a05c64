"""Disjoint splits: the split of a problem is a function of the problem itself.

The hash of a problem's canonical form (template and numbers, without names and objects) determines its split. So a
problem is in the same split for every count and seed, and the numbers of a test problem never occur with the same
template in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

# Shares in twentieths. `pretrain` is for pretraining text; it overlaps with no split of a task.
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
    """The random generator of one split and seed. Raises ValueError for an unknown split."""
    if split not in PARTS:
        raise ValueError(f"split={split!r}: accepted: {', '.join(PARTS)}")
    return np.random.default_rng([seed, list(PARTS).index(split)])


def one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    """Draw one of the values; same draws as rng.choice, but faster because no array is made."""
    return values[int(rng.integers(len(values)))]


def distinct(draw: Callable[[], tuple[str, dict[str, str]]], count: int) -> Iterator[dict[str, str]]:
    """The first `count` rows of `draw` (returns key, row) with distinct keys.

    Raises ValueError if 1000 consecutive draws give no new key.
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
