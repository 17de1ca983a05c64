"""Keys under `eval`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.section import COSTS, GIVEN, Count, Section, only_where


class EvalConfig(Section):
    """What is evaluated and how."""

    @property
    def retention(self) -> bool:
        """Whether retention is measured: scores of what the base model could already do (eval.also, eval.text)."""
        return bool(self.also or self.text)

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
    also: list[str] = Field(
        [], description="tasks of lm-eval scored beside, of the base model and of the trained one (decoders)"
    )
    text: str | None = Field(
        None, description="a text (.txt, or rows with a column text) whose loss is scored beside likewise"
    )
    along: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="shares t of the update at which W0 + t dW is scored too"
    )
    split: Literal["test", "validation"] = Field(
        "test", description="what is scored; validation: rows that are held back from training"
    )
