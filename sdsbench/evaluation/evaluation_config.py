"""Keys under `eval`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.section import COSTS, GIVEN, Count, Section, only_where


class EvalConfig(Section):
    """What is evaluated and how."""

    limit: Count | None = Field(None, description="rows of each evaluation set; null: all")
    order: Annotated[Literal["random", "first"], only_where(limit=GIVEN)] = Field(
        "random", description="which rows limit keeps: random (one draw for all runs, classes in proportion) or first"
    )
    batch_size: Annotated[Count, COSTS] = Field(
        32, description="rows generated or scored at once; scores do not depend on it"
    )
    untrained: bool = Field(False, description="also evaluate the model before training")
    untrained_limit: Annotated[Count | None, only_where(untrained=True)] = Field(
        None, description="a draw of so many of these rows for the model before training; null: all of them"
    )
    each_epoch: bool = Field(
        False, description="also evaluate after every epoch; the best one is reported beside the last"
    )
    split: Literal["test", "validation"] = Field(
        "test", description="what is scored; validation: rows that are held back from training"
    )
