"""Which examples an optimizer step sees: a function of (seed, step) alone, so a resumed run needs no memory of it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


class DataOrder:
    """Shuffled passes over `rows` examples in steps of `batch` (the last step of a pass may be smaller)."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self.steps_per_epoch = math.ceil(rows / batch)
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Optimizer steps of the run."""
        return max_steps if max_steps is not None else max(1, round(epochs * self.steps_per_epoch))

    def examples(self, step: int) -> list[int]:
        """Example numbers of optimizer step `step`, counted from 1."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        return self._permutation(epoch)[position * self.batch : (position + 1) * self.batch].tolist()

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)
