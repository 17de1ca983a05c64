"""What a method may ask of a run before its first step: gradients of the target weights over a few training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdsbench.methods.base import Layers
from sdsbench.methods.gradients import summed_gradients
from sdsbench.training.loop import Training
from sdsbench.training.schedule import warmup_steps


@dataclass
class TrainingContext:
    """The DataContext (methods/base.py) of a run."""

    training: Training
    generator: torch.Generator
    after_row: Callable[[], None] = lambda: None  # may raise to stop

    @property
    def train_rows(self) -> int:
        return len(self.training.examples)

    @property
    def total_steps(self) -> int:
        return self.training.total_steps

    @property
    def warmup_steps(self) -> int:
        return warmup_steps(self.training.config.warmup_ratio, self.total_steps)

    @property
    def learning_rate(self) -> float:
        return self.training.config.lr

    def summed_gradients(self, layers: Layers, rows: int) -> dict[str, Tensor]:
        """Gradients of the mean target loss of each of `rows` random rows, summed: m x n, fp32, on the CPU."""
        chosen = torch.randperm(self.train_rows, generator=self.generator)[:rows].tolist()

        def run_backward() -> None:
            for number in chosen:
                example = self.training.examples[number]
                loss = self.training.objective.loss(self.training.model, [example], self.training.device)
                (loss / example.targets).backward()
                self.after_row()

        return summed_gradients(layers, run_backward)
