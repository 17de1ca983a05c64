"""Keys under `train`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.section import COSTS, GIVEN, PLACES, Count, FromZero, PositiveNumber, Section, Share, only_where

OptimizerName = Literal["adamw", "momentum", "sgd", "adamw8bit"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


class TrainConfig(Section):
    """How long, how large, how fast."""

    lr: PositiveNumber = Field(1e-3, description="peak learning rate of the method's parameters")
    head_lr: PositiveNumber | None = Field(
        None, description="learning rate of a classifier head; null: the same as train.lr"
    )
    batch_size: Count = Field(8, description="examples of one optimizer step, in however many passes they are computed")
    micro_tokens: Annotated[Literal["auto"] | Count, COSTS] = Field(
        "auto", description="the most tokens of one forward and backward pass; auto: what the device takes best"
    )
    epochs: Annotated[PositiveNumber, only_where(max_steps=None)] = Field(
        1.0, description="passes over the training rows"
    )
    max_steps: Count | None = Field(None, description="optimizer steps; null: what train.epochs gives")
    max_length: Count = Field(512, description="tokens kept of an example, cut on the left of the prompt")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="how the learning rate falls to 0 after the warm-up, or that it does not"
    )
    warmup_ratio: Share = Field(0.0, description="share of the steps with a rising learning rate")
    optimizer: OptimizerName = Field(
        "adamw", description="momentum is 0.9; adamw8bit: full_ft of large models (docs/speed.md)"
    )
    betas: Annotated[list[Share], only_where(optimizer=("adamw", "adamw8bit"))] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="adamw's and adamw8bit's"
    )
    weight_decay: FromZero = Field(0.0, description="on trained matrices (adamw: decoupled), not on vectors")
    clip_norm: PositiveNumber | None = Field(1.0, description="largest norm of the whole gradient; null: no clipping")
    clip: Annotated[Literal["raw", "adjusted"], only_where(clip_norm=GIVEN)] = Field(
        "raw", description="what is clipped: gradients before the method adjusts them, or what it made of them"
    )
    checkpoint_every: Annotated[Count, PLACES] = Field(50, description="optimizer steps between checkpoints")
    save: Annotated[Literal["none", "adapter", "all"], PLACES] = Field(
        "adapter", description="trained tensors that are kept; all: the weights of full fine-tuning too"
    )
    activation_checkpointing: Annotated[bool, COSTS] = Field(
        False, description="keep the input of each block only and compute the block again in backward"
    )

    @property
    def recomputes(self) -> bool:
        """Whether blocks are computed twice: always with adamw8bit, which serves models that fit no other way."""
        return self.activation_checkpointing or self.optimizer == "adamw8bit"

    def problems(self) -> Iterator[Problem]:
        if self.optimizer == "adamw8bit" and self.micro_tokens != "auto":
            advice = (
                "It uses each gradient up inside the backward pass, so passes cannot be added up: a step is one pass."
            )
            yield Problem("train.micro_tokens", self.micro_tokens, "auto with train.optimizer=adamw8bit", advice)
