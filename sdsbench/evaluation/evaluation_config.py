"""Keys under `eval`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdsbench.core.errors import Problem


@dataclass
class EvalConfig:
    """What is evaluated and how; scores do not depend on batch_size."""

    limit: int | None = None
    batch_size: int = 32
    untrained: bool = False
    each_epoch: bool = False
    split: str = "test"

    def problems(self) -> Iterator[Problem]:
        if self.limit is not None and self.limit < 1:
            yield Problem("eval.limit", self.limit, "a whole number from 1, or null for every row")
        if self.batch_size < 1:
            yield Problem("eval.batch_size", self.batch_size, "a whole number from 1")
        if self.split not in ("test", "validation"):
            yield Problem("eval.split", self.split, "test or validation (rows held back from training)")
