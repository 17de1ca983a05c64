"""Keys under `train`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.section import (
    COSTS,
    GIVEN,
    PLACES,
    Count,
    FromZero,
    PositiveNumber,
    Section,
    Share,
    only_where,
    other_than,
)

OptimizerName = Literal["adamw", "momentum", "sgd", "adamw8bit"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


class TrainConfig(Section):
    """Optimizer, learning-rate schedule, batch and length of a training run."""

    lr: PositiveNumber = Field(1e-3, description="peak learning rate of the method's parameters")
    head_lr: PositiveNumber | None = Field(
        None, description="learning rate of a classifier head; null: the same as train.lr"
    )
    batch_size: Count = Field(8, description="examples of one optimizer step, in however many passes they are computed")
    micro_tokens: Annotated[Literal["auto"] | Count, COSTS] = Field(
        "auto", description="the most tokens of one forward and backward pass; auto: what the device takes best"
    )
    mean_over: Count | None = Field(
        None,
        description="examples whose targets share one mean, the loss being the mean of those; null: all of a step "
        "(a number: as trainers do that average each pass of so many by itself)",
    )
    epochs: Annotated[PositiveNumber, only_where(max_steps=None)] = Field(
        1.0, description="passes over the training rows"
    )
    max_steps: Count | None = Field(None, description="optimizer steps; null: what train.epochs gives")
    max_length: Count = Field(512, description="tokens kept of a training example: the end goes, its end token first")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="how the learning rate falls to 0 after the warm-up, or that it does not"
    )
    warmup_ratio: Share = Field(0.0, description="share of the steps with a rising learning rate")
    warmup_rounding: Annotated[Literal["up", "down"], only_where(warmup_ratio=other_than(0.0))] = Field(
        "up", description="to whole steps (transformers' trainer rounds up, LoRA-SB's GLUE loop down)"
    )
    order: Literal["shuffled", "repeated", "sequential"] = Field(
        "shuffled", description="of the rows: drawn for each pass, drawn once for all passes, or as they lie"
    )
    optimizer: OptimizerName = Field(
        "adamw", description="momentum is 0.9; adamw8bit: full_ft of large models (docs/speed.md)"
    )
    betas: Annotated[list[Share], only_where(optimizer=("adamw", "adamw8bit"))] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="adamw's and adamw8bit's"
    )
    weight_decay: FromZero = Field(0.0, description="on trained matrices (adamw: decoupled), not on vectors")
    decay_vectors: Annotated[bool, only_where(weight_decay=other_than(0.0))] = Field(
        False, description="weight decay on biases, norms and magnitudes too (AdamW over all parameters, as some code)"
    )
    clip_norm: PositiveNumber | None = Field(1.0, description="largest norm of the whole gradient; null: no clipping")
    clip: Annotated[Literal["raw", "adjusted", "raw_norm"], only_where(clip_norm=GIVEN)] = Field(
        "raw",
        description="what is clipped: gradients before the method adjusts them, or what it made of them, by its own "
        "norm or by that of the raw ones",
    )
    best_every: Count | None = Field(
        None,
        description="optimizer steps between looks at the loss on training rows held out: the result is what was "
        "trained at the lowest; null: after the last step",
    )
    best_rows: Annotated[Count, only_where(best_every=GIVEN)] = Field(
        120, description="training rows held out for that, one draw for all runs"
    )
    checkpoint_every: Annotated[Count, PLACES] = Field(50, description="optimizer steps between checkpoints")
    save: Annotated[Literal["none", "adapter", "all"], PLACES] = Field(
        "adapter",
        description="trained tensors that are kept; all: the weights of full fine-tuning too (of a plan's tuning runs "
        "never)",
    )
    activation_checkpointing: Annotated[bool, COSTS] = Field(
        False, description="keep the input of each block only and compute the block again in backward"
    )

    @property
    def recomputes(self) -> bool:
        """Whether activation checkpointing is on; always with adamw8bit, which is meant for models that barely fit."""
        return self.activation_checkpointing or self.optimizer == "adamw8bit"

    def problems(self) -> Iterator[Problem]:
        if self.optimizer == "adamw8bit" and self.micro_tokens != "auto":
            advice = (
                "It uses each gradient up inside the backward pass, so passes cannot be added up: a step is one pass."
            )
            yield Problem("train.micro_tokens", self.micro_tokens, "auto with train.optimizer=adamw8bit", advice)
        if self.optimizer == "adamw8bit" and self.mean_over is not None:
            advice = "Means of their own are passes of their own, and with adamw8bit a step is one pass."
            yield Problem("train.mean_over", self.mean_over, "null with train.optimizer=adamw8bit", advice)
