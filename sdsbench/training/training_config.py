"""Keys under `train`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sdsbench.core.errors import Problem

SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "momentum", "sgd", "adamw8bit")
SAVES = ("none", "adapter", "all")


@dataclass
class TrainConfig:
    """How long, how large, how fast. The effective batch is batch_size x accumulation examples."""

    lr: float
    head_lr: float | None = None
    batch_size: int = 8
    accumulation: int = 1
    epochs: float = 1.0
    max_steps: int | None = None
    max_length: int = 512
    schedule: str = "cosine"
    warmup_ratio: float = 0.0
    optimizer: str = "adamw"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    checkpoint_every: int = 50
    save: str = "adapter"
    activation_checkpointing: bool = False

    @property
    def recomputes(self) -> bool:
        """Whether blocks are computed twice: always with adamw8bit, which serves models that fit no other way."""
        return self.activation_checkpointing or self.optimizer == "adamw8bit"

    def problems(self) -> Iterator[Problem]:
        for key in ("batch_size", "accumulation", "max_length", "checkpoint_every"):
            if getattr(self, key) < 1:
                yield Problem(f"train.{key}", getattr(self, key), "a whole number from 1")
        for key in ("lr", "epochs"):
            if not getattr(self, key) > 0:
                yield Problem(f"train.{key}", getattr(self, key), "a number above 0")
        for key in ("head_lr", "clip_norm"):
            if getattr(self, key) is not None and not getattr(self, key) > 0:
                yield Problem(f"train.{key}", getattr(self, key), "a number above 0, or null")
        if self.max_steps is not None and self.max_steps < 1:
            yield Problem("train.max_steps", self.max_steps, "a whole number from 1, or null for whole epochs")
        if self.schedule not in SCHEDULES:
            yield Problem("train.schedule", self.schedule, ", ".join(SCHEDULES))
        if self.optimizer not in OPTIMIZERS:
            yield Problem("train.optimizer", self.optimizer, ", ".join(OPTIMIZERS))
        if not 0 <= self.warmup_ratio < 1:
            yield Problem("train.warmup_ratio", self.warmup_ratio, "a number from 0 to below 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield Problem("train.betas", self.betas, "two numbers from 0 to below 1")
        if self.optimizer == "adamw8bit" and self.accumulation > 1:
            advice = (
                "It uses each gradient up inside the backward pass, so micro-batches cannot be added up: "
                f"train.batch_size={self.batch_size * self.accumulation} has the same effective batch."
            )
            yield Problem("train.accumulation", self.accumulation, "1 with train.optimizer=adamw8bit", advice)
        if self.save not in SAVES:
            yield Problem("train.save", self.save, ", ".join(SAVES))
        if self.weight_decay < 0:
            yield Problem("train.weight_decay", self.weight_decay, "a number from 0")
