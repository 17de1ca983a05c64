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
        "auto", description="auto: local if data.root is set, else the hub if reachable, else embedded (quick only)"
    )
    root: Annotated[PathText | None, PLACES] = Field(None, description="folder of data sets for source local")
    train: Annotated[PathText | None, PLACES] = Field(
        None, description="own training rows: a file (.jsonl, .json, .csv, .parquet ...) or a folder of save_to_disk"
    )
    validation: Annotated[PathText | None, PLACES] = Field(
        None, description="own rows that tuning is scored on; null: some of the training rows"
    )
    test: Annotated[PathText | None, PLACES] = Field(
        None, description="own rows whose scores are reported; null: a share of those of data.train, by their questions"
    )
    test_share: Share = Field(0.1, description="share of data.train that is reported on where data.test is null")
    question: str | None = Field(
        None,
        description="what says which own rows ask the same, a column or text with {COLUMN}s; follows the task's prompt",
    )
    name: str = Field("own", description="what own files are called in the run's name; other files, another name")
    train_limit: Count | None = Field(None, description="training rows used; null: all")
    order: Annotated[Literal["random", "first"], only_where(train_limit=GIVEN)] = Field(
        "random",
        description="which rows train_limit keeps: random (one draw for all runs, classes in proportion) or first",
    )
    max_tokens: Count | None = Field(
        None,
        description="training rows of more tokens, prompt, response and end token, are left out before train_limit "
        "counts; null: none is (train.max_length cuts them)",
    )
    validation_rows: Count = Field(
        200,
        description="training rows held back for eval.split=validation where no other split is left for it; of own "
        "files at most a quarter",
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
