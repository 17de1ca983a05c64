"""The training loop. Each optimizer step: gradients of the mean target loss, the method's hooks, the update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sdsbench.core.errors import TrainingFailed
from sdsbench.training.dropout import Dropout
from sdsbench.training.in_backward import InBackwardAdamW
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.passes import Parts, cut, divisors, out_of_memory, targets_of
from sdsbench.training.schedule import factor, warmup_steps
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig


class Objective(Protocol):
    """What a family of tasks (text, sentences, images) computes in a forward pass."""

    trains_head: ClassVar[bool]  # whether a new head of the model trains along with the method
    padded: bool  # whether the rows of a pass are padded to its longest example

    def tokens(self, examples: Sequence[Any]) -> int: ...
    def positions(self, model: Any, examples: Sequence[Any], device: torch.device) -> int: ...
    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor: ...
    def losses(self, model: Any, shares: Sequence[Sequence[Any]], device: torch.device) -> list[Tensor]: ...


class Observer(Protocol):
    """Measures single optimizer updates (probes/observer.py)."""

    def observe(self, step: int, update: Callable[[], None]) -> float:
        """Call `update` once (the method's before_step, then the optimizer); return the seconds spent measuring,
        which do not count as training time."""


class Unobserved:
    """The observer of a run without probes."""

    def observe(self, step: int, update: Callable[[], None]) -> float:
        update()
        return 0.0


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did; a line of metrics.jsonl."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    targets: int
    seconds: float
    facts: dict[str, float]

    def numbers(self) -> dict[str, float]:
        """The fields written to metrics.jsonl."""
        keys = ("loss", "lr", "grad_norm", "tokens", "targets", "seconds")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Training:
    """Everything about a training run that stays constant while it trains; TrainState holds what changes."""

    model: Any
    objective: Objective
    examples: Sequence[Any]
    order: DataOrder
    config: TrainConfig
    device: torch.device
    dropout: Dropout
    micro_tokens: int | None = None  # largest number of tokens in a pass; None: every step is one pass
    whole_steps: str | None = None  # why every step must be one pass (whole_steps.py); None: any split will do
    observer: Observer = field(default_factory=Unobserved)

    @property
    def total_steps(self) -> int:
        return self.order.total_steps(self.config.epochs, self.config.max_steps)

    def run(self, state: TrainState, after_step: Callable[[StepReport], None]) -> None:
        """Train from `state.step` to the end; call `after_step` after every step (it may raise to stop).

        Raises TrainingFailed on a loss or gradient that is not finite.
        """
        self.model.train()
        while state.step < self.total_steps:
            after_step(self.step(state))
        self.model.eval()

    def step(self, state: TrainState) -> StepReport:
        """One optimizer step over train.batch_size examples."""
        return self.step_on(state, self.batch(state.step + 1))

    def batch(self, step: int) -> list[Any]:
        """The examples of optimizer step `step`, counted from 1."""
        return [self.examples[number] for number in self.order.examples(step)]

    def step_on(self, state: TrainState, batch: Sequence[Any]) -> StepReport:
        """One optimizer step over the given examples."""
        started = time.perf_counter()
        if isinstance(state.optimizer, InBackwardAdamW):
            return self._step_in_backward(state, state.optimizer, self.split(batch), started)
        parts, loss = self.gradients(state, batch, state.step + 1)
        return self.update(state, parts, loss, time.perf_counter() - started)

    def gradients(self, state: TrainState, batch: Sequence[Any], step: int) -> tuple[Parts, float]:
        """Compute the gradients of a step; return (examples of each pass, mean loss in nats). `step` seeds dropout.

        If memory is too short, retry with passes of half as many tokens, and keep that limit for all later steps.
        Raises the device's own error if even a single example does not fit, or a step that must be one pass.
        """
        assert isinstance(state.optimizer, FlatOptimizer)
        while True:
            parts = self.split(batch, state.micro_limit)
            state.optimizer.zero_grad()
            try:
                with self.dropout.of_step(step):
                    return parts, self.backward(parts)
            except Exception as error:
                if not out_of_memory(error) or len(parts) == len(batch) or self.whole_steps:
                    raise
            # Outside the except block, since the exception keeps the tensors of the failed pass alive.
            state.micro_limit = max(self.objective.tokens(part) for part in parts) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def split(self, batch: Sequence[Any], limit: int | None = None) -> Parts:
        """Split the examples of a step into passes of at most `micro_tokens` tokens, and at most `limit`."""
        budget = min((budget for budget in (self.micro_tokens, limit) if budget is not None), default=None)
        size = self.config.mean_over or len(batch)  # a pass never spans two of the groups that train.mean_over averages
        groups = [batch[start : start + size] for start in range(0, len(batch), size)]
        return [part for group in groups for part in cut(group, budget, self.objective.tokens)]

    def update(self, state: TrainState, parts: Parts, loss: float, seconds: float) -> StepReport:
        """The second half of a step: clipping, the method's hooks, the optimizer's update.

        The gradients are already computed; that took `seconds`, which count as part of the step.
        """
        started = time.perf_counter() - seconds
        step, optimizer = state.step + 1, state.optimizer
        assert isinstance(optimizer, FlatOptimizer)
        clip, limit = self.config.clip, self.config.clip_norm
        lr_factor, grad_norm = self._lr_factor(step), math.nan

        def move() -> None:
            nonlocal grad_norm
            if clip != "adjusted":
                grad_norm = optimizer.clip(limit if clip == "raw" else None)
            state.method.before_step(state.layers, step, self.config.lr * lr_factor)
            if clip == "adjusted":
                grad_norm = optimizer.clip(limit)
            elif clip == "raw_norm" and limit is not None:
                optimizer.scale_down(limit, grad_norm)
            check_finite(step, loss, grad_norm)
            optimizer.step(lr_factor)

        started += self.observer.observe(step, move)
        facts = state.method.after_step(state.layers, step, self.total_steps, optimizer)
        return self._finish(state, parts, loss, grad_norm, lr_factor, facts, started)

    def _step_in_backward(
        self, state: TrainState, optimizer: InBackwardAdamW, parts: Parts, started: float
    ) -> StepReport:
        """A step whose weights change during the backward pass (full fine-tuning only, so no method hooks run)."""
        step = state.step + 1
        lr_factor = self._lr_factor(step)

        def backward(scale: float) -> float:
            with self.dropout.of_step(step):
                return self.backward(parts, scale)

        loss, grad_norm = optimizer.step(backward, step, lr_factor, self.config.clip_norm)
        check_finite(step, loss, grad_norm)
        return self._finish(state, parts, loss, grad_norm, lr_factor, {}, started)

    def _lr_factor(self, step: int) -> float:
        warmup = warmup_steps(self.config.warmup_ratio, self.total_steps, self.config.warmup_rounding)
        return factor(self.config.schedule, step, self.total_steps, warmup)

    def backward(self, parts: Parts, scale: float = 1.0) -> float:
        """Compute the gradients of scale * loss; return the unscaled loss, a mean over all targets of the step.

        As the mean is over the step, not over a pass, the split into passes does not change it (see train.mean_over).
        """
        total = 0.0
        for part, divisor in zip(parts, divisors(parts, self.config.mean_over), strict=True):
            self.dropout.masks.begin_pass(len(part), self.objective.tokens(part))
            loss = self.objective.loss(self.model, part, self.device)
            (loss / divisor * scale).backward()
            total += loss.item() / divisor
        return total

    def _finish(
        self, state: TrainState, parts: Parts, loss: float, grad_norm: float, lr_factor: float,
        facts: dict[str, float], started: float,
    ) -> StepReport:  # fmt: skip
        state.step += 1
        tokens, targets = sum(example.length for part in parts for example in part), targets_of(parts)
        counters = state.counters
        counters.tokens += tokens
        counters.targets += targets
        counters.positions += sum(self.objective.positions(self.model, part, self.device) for part in parts)
        seconds = time.perf_counter() - started
        counters.seconds += seconds
        return StepReport(state.step, loss, self.config.lr * lr_factor, grad_norm, tokens, targets, seconds, facts)


def check_finite(step: int, loss: float, grad_norm: float) -> None:
    """Raises TrainingFailed where a loss or a gradient is not finite."""
    if not math.isfinite(loss) or not math.isfinite(grad_norm):
        raise TrainingFailed(f"step {step}: loss {loss}, gradient norm {grad_norm}: not finite. Try a lower train.lr.")
