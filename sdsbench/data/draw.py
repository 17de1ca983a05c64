"""Which rows a limit keeps: the same for every run, drawn so that each class has its share, or the first ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from sdsbench.data.sources import Rows

Order = Literal["random", "first"]
SEED = 20241  # no run's seed moves the rows that are drawn: runs are compared on the same rows


def limited(rows: Rows, limit: int | None, order: Order) -> Rows:
    """At most `limit` rows, in the order in which they lie: the first ones, or a draw."""
    if limit is None or limit >= len(rows):
        return rows
    if order == "first":
        return rows.take(range(limit))
    column = rows.classes
    classes = [row[column] for row in rows.cells([column])] if column in rows[0] else [None] * len(rows)
    return rows.take(draw(classes, limit))


def draw(classes: Sequence[Hashable], count: int) -> list[int]:
    """Positions of `count` rows, ascending: from each class its share of them, to within one row.

    A systematic sample: the rows of each class, shuffled, lie at equal distances in (0, 1), from a start that is drawn
    for the class, and the first `count` of all are taken. So the rows of a smaller draw are among those of a larger.
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
