"""What a method may ask of a run before its first step: gradients and trial steps on its training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdsbench.methods.base import Layers, Optimizer
from sdsbench.methods.gradients import summed_gradients
from sdsbench.training.loop import Training, check_finite
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.schedule import warmup_steps
from sdsbench.training.state import TrainState


@dataclass
class TrainingContext:
    """Implements DataContext (methods/base.py) for a run."""

    training: Training
    generator: torch.Generator
    state: TrainState | None = None
    after_row: Callable[[], None] = lambda: None  # called after each backward pass; may raise to stop

    @property
    def train_rows(self) -> int:
        return len(self.training.examples)

    @property
    def warmup_steps(self) -> int:
        return warmup_steps(self.warmup_ratio, self.training.total_steps, self.training.config.warmup_rounding)

    @property
    def warmup_ratio(self) -> float:
        return self.training.config.warmup_ratio

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        training, config = self.training, self.training.config
        return config.epochs if config.max_steps is None else training.total_steps / training.order.steps_per_epoch

    @property
    def learning_rate(self) -> float:
        return self.training.config.lr

    def summed_gradients(
        self, layers: Layers, rows: int, batch: int = 1, dropout: bool = False, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Gradients of each row's mean target loss, summed over `rows` random rows; m x n by layer, on the CPU.

        With `batch` = k > 1, the gradient of the mean over a batch's targets, divided by k, takes the place of a row's.
        `dtype` is that of the sum (None: fp32); `dropout` switches on the base model's dropout.
        """
        training = self.training
        chosen = torch.randperm(self.train_rows, generator=self.generator)[:rows].tolist()

        def run_backward() -> None:
            for start in range(0, len(chosen), batch):
                examples = [training.examples[number] for number in chosen[start : start + batch]]
                loss = training.objective.loss(training.model, examples, training.device)
                (loss / (sum(example.targets for example in examples) * len(examples))).backward()
                self.after_row()

        if not dropout:
            return summed_gradients(layers, run_backward, dtype)
        was_training = training.model.training
        training.model.train()
        try:
            with training.dropout.of_step(0):
                return summed_gradients(layers, run_backward, dtype)
        finally:
            training.model.train(was_training)

    def train_at_constant_rate(self, steps: int, after_step: Callable[[int, Optimizer], None]) -> None:
        """Train on the run's first batches at the peak learning rate, then clear the optimizer's moments.

        Calls `after_step(step, optimizer)` after each step, counted from 1. Raises TrainingFailed if a loss or gradient
        is not finite.
        """
        assert self.state is not None and isinstance(self.state.optimizer, FlatOptimizer), "adapters have masters"
        training, optimizer = self.training, self.state.optimizer
        was_training = training.model.training
        training.model.train()
        for step in range(1, steps + 1):
            _, loss = training.gradients(self.state, training.batch(step), step)
            check_finite(step, loss, optimizer.clip(training.config.clip_norm))
            optimizer.step(1.0)
            after_step(step, optimizer)
            self.after_row()
        optimizer.clear_state(head=True)
        training.model.train(was_training)
