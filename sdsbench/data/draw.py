"""Select the rows that a limit keeps: the first ones, or a stratified sample that is the same for every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from sdsbench.data.sources import Rows

Order = Literal["random", "first"]
SEED = 20241  # fixed, not a run's seed: all runs must be compared on the same rows


def limited(rows: Rows, limit: int | None, order: Order) -> Rows:
    """At most `limit` rows in their original order: the first ones, or a random draw."""
    if limit is None or limit >= len(rows):
        return rows
    if order == "first":
        return rows.take(range(limit))
    column = rows.classes
    classes = [row[column] for row in rows.cells([column])] if column in rows[0] else [None] * len(rows)
    return rows.take(draw(classes, limit))


def draw(classes: Sequence[Hashable], count: int) -> list[int]:
    """Positions of `count` rows, ascending; every class gives the same fraction of its rows, to within one row.

    Systematic sampling: the shuffled rows of each class are placed at equal distances in (0, 1) with a random offset
    per class, and the `count` rows with the smallest positions are taken. So a smaller draw is a subset of a larger
    one.
    """
    generator = np.random.default_rng(SEED)
    sizes = Counter(classes)
    start = {name: generator.random() for name in sizes}
    met: Counter[Hashable] = Counter()
    place = np.empty(len(classes))
    shuffled = generator.permutation(len(classes))
    for position in shuffled:
        name = classes[position]
        place[position] = (met[name] + start[name]) / sizes[name]
        met[name] += 1
    first = shuffled[np.argsort(place[shuffled], kind="stable")[:count]]
    return sorted(first.tolist())
