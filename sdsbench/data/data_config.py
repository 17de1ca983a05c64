"""Keys under `data`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.section import GIVEN, PLACES, Count, PathText, Section, Share, only_where


class DataConfig(Section):
    """Where rows come from and how many are used."""

    source: Literal["auto", "hub", "local", "embedded"] = Field(
        "auto",
        description="auto: local if data.root is set, else the hub if reachable, else embedded (protocol=quick only)",
    )
    root: Annotated[PathText | None, PLACES] = Field(None, description="folder of data sets for source local")
    train: Annotated[PathText | None, PLACES] = Field(
        None,
        description="your own training rows: a file (.jsonl, .json, .csv, .parquet ...) or a folder of save_to_disk",
    )
    validation: Annotated[PathText | None, PLACES] = Field(
        None, description="your own rows on which tuning is scored; null: some of the training rows"
    )
    test: Annotated[PathText | None, PLACES] = Field(
        None, description="your own test rows; null: a share of the rows of data.train, split by question"
    )
    test_share: Share = Field(
        0.1, description="share of the rows of data.train that become test rows if data.test is null"
    )
    question: str | None = Field(
        None,
        description="a column, or text with {COLUMN}s, that is equal for rows of your own that ask the same question; "
        "by default the task's prompt",
    )
    name: str = Field("own", description="name of your own files, part of the run's id; give other files another name")
    train_limit: Count | None = Field(None, description="number of training rows; null: all")
    order: Annotated[Literal["random", "first"], only_where(train_limit=GIVEN)] = Field(
        "random",
        description="which rows train_limit keeps: random (the same draw in all runs, classes in proportion) or first",
    )
    max_tokens: Count | None = Field(
        None,
        description="training rows with more tokens (prompt, response and end token) are left out before train_limit "
        "applies; null: none is (train.max_length cuts them)",
    )
    validation_rows: Count = Field(
        200,
        description="training rows held back for eval.split=validation if the data set has no other split for it; at "
        "most a quarter of your own files",
    )

    def problems(self) -> Iterator[Problem]:
        if self.source == "local" and not (self.root or self.train):
            yield Problem(
                "data.root", self.root, "a folder of data sets", "data.source=local needs it (or data.train)."
            )
        if self.train and self.source not in ("auto", "local"):
            yield Problem("data.source", self.source, "local or auto with data.train", "Own files are read from here.")
        if (self.test or self.validation) and not self.train:
            yield Problem("data.train", self.train, "a file of training rows", "data.test and data.validation need it.")
