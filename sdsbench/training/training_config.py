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
    batch_size: Count = Field(8, description="examples per optimizer step, however many passes compute them")
    micro_tokens: Annotated[Literal["auto"] | Count, COSTS] = Field(
        "auto", description="largest number of tokens in one forward and backward pass; auto: chosen for the device"
    )
    mean_over: Count | None = Field(
        None,
        description="examples over whose targets the loss is averaged before these means are averaged over the step, "
        "as in trainers that average each pass by itself; null: all examples of the step",
    )
    epochs: Annotated[PositiveNumber, only_where(max_steps=None)] = Field(
        1.0, description="passes over the training rows"
    )
    max_steps: Count | None = Field(None, description="number of optimizer steps; null: as many as train.epochs needs")
    max_length: Count = Field(
        512, description="tokens per training example; longer ones are cut at the end and lose their end token"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="learning rate after the warm-up: constant, or linear or cosine decay to 0"
    )
    warmup_ratio: Share = Field(0.0, description="share of the steps with a rising learning rate")
    warmup_rounding: Annotated[Literal["up", "down"], only_where(warmup_ratio=other_than(0.0))] = Field(
        "up",
        description="rounding of the number of warm-up steps (transformers' trainer: up, LoRA-SB's GLUE loop: down)",
    )
    order: Literal["shuffled", "repeated", "sequential"] = Field(
        "shuffled", description="order of the rows: shuffled anew in each epoch, shuffled once, or as stored"
    )
    optimizer: OptimizerName = Field(
        "adamw", description="momentum uses 0.9; adamw8bit is for full_ft of large models (docs/speed.md)"
    )
    betas: Annotated[list[Share], only_where(optimizer=("adamw", "adamw8bit"))] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay rates of the moments of adamw and adamw8bit"
    )
    weight_decay: FromZero = Field(0.0, description="applied to trained matrices (decoupled for adamw), not to vectors")
    decay_vectors: Annotated[bool, only_where(weight_decay=other_than(0.0))] = Field(
        False, description="weight decay also on biases, norms and magnitudes, as in code that decays all parameters"
    )
    clip_norm: PositiveNumber | None = Field(1.0, description="largest norm of the whole gradient; null: no clipping")
    clip: Annotated[Literal["raw", "adjusted", "raw_norm"], only_where(clip_norm=GIVEN)] = Field(
        "raw",
        description="gradients to clip: those before the method adjusts them (raw), or the adjusted ones, by their own "
        "norm (adjusted) or by the norm of the raw ones (raw_norm)",
    )
    best_every: Count | None = Field(
        None,
        description="optimizer steps between evaluations of the loss on held-out training rows; the step with the "
        "lowest loss is the result; null: the last step",
    )
    best_rows: Annotated[Count, only_where(best_every=GIVEN)] = Field(
        120, description="training rows held out for best_every, the same draw in all runs"
    )
    checkpoint_every: Annotated[Count, PLACES] = Field(50, description="optimizer steps between checkpoints")
    save: Annotated[Literal["none", "adapter", "all"], PLACES] = Field(
        "adapter",
        description="trained tensors to save; all: also the weights of full fine-tuning (but never of a plan's tuning "
        "runs)",
    )
    activation_checkpointing: Annotated[bool, COSTS] = Field(
        False, description="store only the input of each block and recompute the block in the backward pass"
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
