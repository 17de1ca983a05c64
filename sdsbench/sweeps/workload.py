"""The rows, tokens and evaluations that a run processes, from its configuration and the known sizes of its data sets.

Nothing is loaded. cost.py computes seconds and bytes from them, scripts/write_reproduce.py disk space.
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

LARGEST_STEP_DEVIATIONS = 4.0  # the tokens of the largest step lie this many standard deviations above the mean
LONGEST_ANSWER_RATIO = (
    2.0  # a batch is generated until its longest answer ends: after this many mean lengths, at most the cap
)


@dataclass(frozen=True)
class Scoring:
    """One pass over one evaluation set."""

    rows: int
    prompt: float  # prompt tokens of a row
    generated: float = 0.0  # tokens that a trained model generates per row; 0: scored without generation
    cap: int = 0  # largest number of generated tokens per row; a model before training is assumed to reach it
    beams: int = 1

    def steps(self, trained: bool) -> float:
        """Number of generation steps of one batch."""
        return min(self.cap, LONGEST_ANSWER_RATIO * self.generated) if trained else self.cap

    def written(self, trained: bool) -> float:
        """Tokens generated per row, over all beams; the beams of a batch end together."""
        tokens = self.steps(trained) if self.beams > 1 or not trained else min(self.cap, self.generated)
        return tokens * self.beams


@dataclass(frozen=True)
class Workload:
    """Everything that a run processes."""

    steps: int  # optimizer steps
    batch: int  # rows of an optimizer step
    divisible: bool  # whether a step may be split into several passes
    tokens: float  # mean number of tokens of a training row
    deviation: float  # standard deviation of that number
    targets: float  # share of the tokens that the loss covers
    longest: int | None  # number of tokens at which rows are cut; None: rows are not cut
    scorings: tuple[Scoring, ...]
    trained_passes: int  # passes over all scorings: after training, after each epoch, and one per value of eval.along
    untrained_passes: float  # the same before training; below 1 if eval.untrained_limit scores fewer rows

    @property
    def trained_rows(self) -> int:
        return self.steps * self.batch

    @property
    def answers(self) -> float:
        """Number of scored rows over all passes."""
        return (self.trained_passes + self.untrained_passes) * sum(scoring.rows for scoring in self.scorings)

    def smallest_pass(self) -> list[int]:
        """Row lengths, in tokens, of the smallest pass that a step can be split into: the longest row, or all rows.

        Their total is LARGEST_STEP_DEVIATIONS standard deviations above the mean, which steps hardly ever exceed.
        """
        if self.divisible:
            return [self.longest or math.ceil(self.tokens)]
        total = self.batch * self.tokens + LARGEST_STEP_DEVIATIONS * self.deviation * math.sqrt(self.batch)
        length = math.ceil(total / self.batch)
        return [length if self.longest is None else min(self.longest, length)] * self.batch


def workload(config: RunConfig, config_json: Mapping[str, Any]) -> Workload:
    """The workload of a run; `config_json`: content of the model's config.json, for the patches of an image model."""
    task, train, size = tasks.build(config.task), config.train, sizes.of(config.task.train_set)
    limit = config.data.train_limit
    made = config.data.source == "embedded"  # generated data has as many rows as requested
    rows = limit or EMBEDDED_ROWS["train"] if made else min(size.train, limit or size.train)
    if train.best_every is not None:
        rows = max(1, rows - train.best_rows)
    batch = train.batch_size
    patches = _patches(config_json) if task.kind == "vision" else None
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
    """Rows scored before training, as a share of the rows scored after it."""
    limit = config.eval.untrained_limit
    asked = sum(min(scoring.rows, limit or scoring.rows) for scoring in scorings)
    return asked / sum(scoring.rows for scoring in scorings)


def _patches(config_json: Mapping[str, Any]) -> int:
    """Tokens of an image: its patches and the class token."""
    return (config_json["image_size"] // config_json["patch_size"]) ** 2 + 1
