"""Keys under `eval`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.samples import is_storable
from sdsbench.core.section import COSTS, GIVEN, PLACES, Count, PathText, Section, only_where


class EvalConfig(Section):
    """What is evaluated and how."""

    @property
    def retention(self) -> bool:
        """Whether retention is measured: scores of what the base model could already do (eval.also, eval.text)."""
        return bool(self.also or self.text)

    limit: Count | None = Field(None, description="rows of each evaluation set; null: all")
    order: Annotated[Literal["random", "first"], only_where(limit=GIVEN)] = Field(
        "random",
        description="which rows limit keeps: random (the same draw in all runs, classes in proportion) or first",
    )
    batch_size: Annotated[Count, COSTS] = Field(
        32, description="rows generated or scored at once; scores do not depend on it"
    )
    engine: Annotated[Literal["transformers", "vllm"], only_where(engine="vllm")] = Field(
        "transformers",
        description="what generates the answers; vllm: used where its verdicts on 64 questions equal transformers'",
    )
    vllm_python: Annotated[PathText | None, PLACES] = Field(
        None, description="the Python of an environment that has vLLM; null: this one"
    )
    untrained: bool = Field(False, description="also evaluate the model before training")
    untrained_limit: Annotated[Count | None, only_where(untrained=True)] = Field(
        None, description="number of rows for the model before training, drawn from these rows; null: all of them"
    )
    each_epoch: bool = Field(
        False, description="also evaluate after every epoch; the best epoch is reported in addition to the last"
    )
    also: list[str] = Field(
        [], description="further tasks of lm-eval that are scored before and after training (decoders)"
    )
    text: str | None = Field(
        None, description="file (.txt, or rows with a column text) whose loss is also scored before and after training"
    )
    along: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="fractions t of the update at which W0 + t dW is also scored"
    )
    split: Literal["test", "validation"] = Field(
        "test", description="rows to score; validation: rows that are held back from training"
    )

    def problems(self) -> Iterator[Problem]:
        refused = [name for name in self.also if not is_storable(name)]
        if refused:
            yield Problem(
                "eval.also",
                refused,
                "tasks of lm-eval whose names have no `__` and no dot",
                "Answers are stored in files of these names. A group of tasks is stored under the group's name.",
            )
