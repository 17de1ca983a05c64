"""Correction for multiple testing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values (Holm 1979) in the given order. NaN (no test) stays NaN and is not counted.

    The smallest of n p-values is multiplied by n, the next by n - 1 and so on; none may fall below its predecessor.
    (Not statsmodels' multipletests, which takes 55 ms for eight p-values.)
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = [int(i) for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(order) - rank) * float(p[i]))
        adjusted[i] = min(1.0, largest)
    return [float(value) for value in adjusted]
