"""Keys under `data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdsbench.core.errors import Problem

SOURCES = ("auto", "hub", "local", "embedded")


@dataclass
class DataConfig:
    """Where rows come from and how many are used."""

    source: str = "auto"
    root: str | None = None
    train_limit: int | None = None
    order: str = "random"
    validation_rows: int = 200

    def problems(self) -> Iterator[Problem]:
        if self.source not in SOURCES:
            yield Problem("data.source", self.source, ", ".join(SOURCES))
        if self.source == "local" and not self.root:
            yield Problem("data.root", self.root, "a folder of parquet files", "data.source=local needs it.")
        if self.train_limit is not None and self.train_limit < 1:
            yield Problem("data.train_limit", self.train_limit, "a whole number from 1, or null for all rows")
        if self.order not in ("first", "random"):
            yield Problem("data.order", self.order, "first or random (which rows data.train_limit keeps)")
        if self.validation_rows < 1:
            yield Problem("data.validation_rows", self.validation_rows, "a whole number from 1")
