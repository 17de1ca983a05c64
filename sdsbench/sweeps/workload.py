"""What a run will process, from its configuration and the public sizes of its sets: rows, tokens, every evaluation.

Nothing is loaded. `cost.py` turns it into seconds and bytes, scripts/write_reproduce.py into disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdsbench.data import sizes
from sdsbench.data.sources import EMBEDDED_ROWS
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks
from sdsbench.tasks.base import Evaluation, generation_of

ABOVE = 4.0  # standard deviations that the largest step lies above the mean one
LONGEST = 2.0  # a batch of answers goes on until its longest ends: so many mean lengths, or the cap


@dataclass(frozen=True)
class Scoring:
    """One pass over one evaluation set."""

    rows: int
    prompt: float  # tokens read of a row
    generated: float = 0.0  # tokens written by a trained model; 0: scored without generation
    cap: int = 0  # tokens written by a model that does not stop
    beams: int = 1

    def steps(self, trained: bool) -> float:
        """Steps of generation that one batch takes."""
        return min(self.cap, LONGEST * self.generated) if trained else self.cap

    def written(self, trained: bool) -> float:
        """Tokens written for a row, those of all beams; beams of a batch end together."""
        tokens = self.steps(trained) if self.beams > 1 or not trained else min(self.cap, self.generated)
        return tokens * self.beams


@dataclass(frozen=True)
class Workload:
    """Everything that a run processes."""

    steps: int  # of the optimizer
    batch: int  # rows of an optimizer step
    divisible: bool  # whether a step may be cut into passes
    tokens: float  # of a training row
    deviation: float
    targets: float  # share of the tokens that the loss covers
    longest: int | None  # a row is cut there
    scorings: tuple[Scoring, ...]
    trained_passes: int  # over all scorings, after training, after epochs and along the way back (eval.along)
    untrained_passes: float  # the model before training may be asked fewer questions

    @property
    def trained_rows(self) -> int:
        return self.steps * self.batch

    @property
    def answers(self) -> float:
        """Rows scored, over all passes."""
        return (self.trained_passes + self.untrained_passes) * sum(scoring.rows for scoring in self.scorings)

    def smallest_pass(self) -> list[int]:
        """Lengths of the rows of the smallest pass that the run can be cut into: the longest row, or all of a step.

        The tokens of a whole step are those to be expected at most, ABOVE deviations above the mean.
        """
        if self.divisible:
            return [self.longest or math.ceil(self.tokens)]
        total = self.batch * self.tokens + ABOVE * self.deviation * math.sqrt(self.batch)
        length = math.ceil(total / self.batch)
        return [length if self.longest is None else min(self.longest, length)] * self.batch


def workload(config: RunConfig, facts: Mapping[str, Any]) -> Workload:
    """The workload of a run; `facts` is the model's config.json (patches of an image model)."""
    task, train, size = tasks.build(config.task), config.train, sizes.of(config.task.train_set)
    limit = config.data.train_limit
    made = config.data.source == "embedded"  # as many rows as asked for
    rows = limit or EMBEDDED_ROWS["train"] if made else min(size.train, limit or size.train)
    if train.best_every is not None:
        rows = max(1, rows - train.best_rows)
    batch = train.batch_size
    patches = _patches(facts) if task.kind == "vision" else None
    longest = None if patches else train.max_length
    tokens, deviation = (float(patches), 0.0) if patches else (min(size.tokens, train.max_length), size.deviation)
    scorings = tuple(_scoring(evaluation, config, patches) for evaluation in task.evaluations())
    whole = task.kind != "text" or config.task.loss_on == "sequence"  # type: ignore[attr-defined]
    epochs = math.ceil(train.epochs) if config.eval.each_epoch and not train.max_steps else 0
    return Workload(
        steps=train.max_steps or math.ceil(train.epochs * rows / batch),
        batch=batch,
        divisible=train.optimizer != "adamw8bit",
        tokens=tokens,
        deviation=deviation,
        targets=1.0 if whole else size.response / size.tokens,
        longest=longest,
        scorings=scorings,
        trained_passes=1 + len(config.eval.along) + epochs,
        untrained_passes=_untrained_share(config, scorings) if config.eval.untrained else 0,
    )


def _scoring(evaluation: Evaluation, config: RunConfig, patches: int | None) -> Scoring:
    size = sizes.of(evaluation.dataset)
    rows = EMBEDDED_ROWS["test"] if config.data.source == "embedded" else size.test
    if config.eval.split == "validation":
        rows = config.data.validation_rows
    rows = min(rows, config.eval.limit or rows)
    if (generation := generation_of(evaluation)) is not None:
        cap = generation.max_new_tokens
        return Scoring(rows, size.tokens - size.response, min(cap, size.response), cap, generation.beams)
    return Scoring(rows, patches or size.tokens)


def _untrained_share(config: RunConfig, scorings: Sequence[Scoring]) -> float:
    """Rows that the model before training is asked, of those that the trained one is."""
    limit = config.eval.untrained_limit
    asked = sum(min(scoring.rows, limit or scoring.rows) for scoring in scorings)
    return asked / sum(scoring.rows for scoring in scorings)


def _patches(facts: Mapping[str, Any]) -> int:
    """Patches of an image, and the class token."""
    return (facts["image_size"] // facts["patch_size"]) ** 2 + 1
