"""Which examples an optimizer step uses: a function of (seed, step) alone, so that checkpoints need not store it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


class DataOrder:
    """Passes over `rows` examples in steps of `batch` (the last step of a pass may be smaller).

    `order`: `shuffled` draws a new permutation for each pass, `repeated` one for all passes, `sequential` draws none.
    """

    def __init__(self, rows: int, batch: int, seed: int, order: str = "shuffled") -> None:
        self.rows, self.batch, self.seed, self.order = rows, batch, seed, order
        self.steps_per_epoch = math.ceil(rows / batch)
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Number of optimizer steps of the run: `max_steps`, or what `epochs` passes over the rows give."""
        return max_steps if max_steps is not None else max(1, round(epochs * self.steps_per_epoch))

    def examples(self, step: int) -> list[int]:
        """Example numbers of optimizer step `step`, counted from 1."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        return self._permutation(epoch)[position * self.batch : (position + 1) * self.batch].tolist()

    def _shuffle(self, epoch: int) -> np.ndarray:
        if self.order == "sequential":
            return np.arange(self.rows)
        return np.random.default_rng([self.seed, epoch if self.order == "shuffled" else 0]).permutation(self.rows)
