"""Keys under `probe`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdsbench.core.errors import Problem


@dataclass
class ProbeConfig:
    """Looks at the geometry of training every so often; changes no number of the run, so it is no part of its name."""

    every: int | None = None
    rows: int = 8

    def problems(self) -> Iterator[Problem]:
        if self.every is not None and self.every < 1:
            yield Problem("probe.every", self.every, "a whole number of steps from 1, or null for no probes")
        if self.rows < 1:
            yield Problem("probe.rows", self.rows, "a whole number from 1: training rows whose gradient G is taken")
