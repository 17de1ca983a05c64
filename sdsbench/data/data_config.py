"""Keys under `data`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.section import GIVEN, PLACES, Count, PathText, Section, only_where


class DataConfig(Section):
    """Where rows come from and how many are used."""

    source: Literal["auto", "hub", "local", "embedded"] = Field(
        "auto", description="auto: local if data.root is set, else the hub if reachable, else embedded (quick only)"
    )
    root: Annotated[PathText | None, PLACES] = Field(None, description="folder of parquet files for source local")
    train_limit: Count | None = Field(None, description="training rows used; null: all")
    order: Annotated[Literal["random", "first"], only_where(train_limit=GIVEN)] = Field(
        "random",
        description="which rows train_limit keeps: random (one draw for all runs, classes in proportion) or first",
    )
    validation_rows: Count = Field(
        200, description="training rows held back for eval.split=validation where no other split is left for it"
    )

    def problems(self) -> Iterator[Problem]:
        if self.source == "local" and not self.root:
            yield Problem("data.root", self.root, "a folder of parquet files", "data.source=local needs it.")
