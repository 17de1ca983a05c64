"""Optimising many small problems at once, with the same methods, layers and optimizers as real training.

Each problem is one nn.Linear of a model, to which the method is attached as usual. Problems share no parameter and the
loss is their sum, so they are optimised independently; the method's small linear algebra runs as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdsbench.methods.attach import attach
from sdsbench.methods.base import Layers, MethodConfig, build
from sdsbench.methods.gradients import summed_gradients
from sdsbench.studies.theory.least_loss import adapter_floor, dense_floor
from sdsbench.studies.theory.problems import LinearProblem
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.schedule import factor
from sdsbench.training.training_config import TrainConfig

DIVERGED = 1e8
"""A problem whose loss exceeds this multiple of its first value counts as diverged and is reset to its start."""


@dataclass(frozen=True)
class Curves:
    """Loss curves per problem; T: step, p: problem."""

    loss_Tp: np.ndarray  # (steps + 1) x problems: before each step and after the last; inf once diverged
    floor_p: np.ndarray  # least loss that the method can represent

    @property
    def excess_Tp(self) -> np.ndarray:
        """Loss above the floor, (steps + 1) x problems."""
        return self.loss_Tp - self.floor_p


@dataclass
class _Context:
    """The DataContext that methods initialise from; the only batch is the whole problem."""

    learning_rate: float
    generator: torch.Generator
    session: _Session
    train_rows: int = 1
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    epochs: float = 1.0

    def summed_gradients(
        self, layers: Layers, rows: int, batch: int = 1, dropout: bool = False, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        return summed_gradients(layers, self.session.backward, dtype)  # type: ignore[arg-type]

    def train_at_constant_rate(self, steps: int, after_step: Callable[[int, Any], None]) -> None:
        raise NotImplementedError("a descent begins with its first step: method.pre_steps is 0 here")


class _Session:
    """The problems as layers of one model."""

    def __init__(self, problems: Sequence[LinearProblem]) -> None:
        self.problems = problems
        self.model = nn.ModuleDict({f"problem{index}": _linear(problem) for index, problem in enumerate(problems)})

    def backward(self) -> list[float]:
        """Compute the gradients of the summed loss; return the loss of each problem."""
        outputs = [layer(problem.x_tn) for layer, problem in zip(self.model.values(), self.problems, strict=True)]
        pairs = list(zip(outputs, self.problems, strict=True))
        torch.autograd.backward(outputs, [problem.residual(output.detach()) for output, problem in pairs])
        return torch.stack([problem.loss(output.detach()) for output, problem in pairs]).tolist()


def descend(problems: Sequence[LinearProblem], method_config: MethodConfig, train: TrainConfig) -> Curves:
    """Take train.max_steps steps of train.optimizer at train.lr on every problem; return the loss curves."""
    assert train.max_steps is not None
    session, method = _Session(problems), build(method_config)
    layers = attach(session.model, method, seed=0)
    optimizer = FlatOptimizer(optimizer_groups(session.model, method, [], train), train)
    generator = torch.Generator().manual_seed(0)
    method.prepare(layers, _Context(train.lr, generator, session))
    floors = [
        adapter_floor(problem, layers[name]) if layers else dense_floor(problem)
        for problem, name in zip(problems, session.model, strict=True)
    ]
    start = [[p.detach().clone() for p in layer.parameters()] for layer in session.model.values()]
    losses: list[np.ndarray] = []
    diverged = np.zeros(len(problems), bool)
    for step in range(1, train.max_steps + 2):
        optimizer.zero_grad()
        loss_p = np.array(session.backward())
        first_p = losses[0] if losses else loss_p
        diverged |= ~(loss_p <= DIVERGED * first_p)  # NaN included
        losses.append(np.where(diverged, np.inf, loss_p))
        if step > train.max_steps:
            break
        _put_back(session, start, diverged)
        lr_factor = factor(train.schedule, step, train.max_steps, 0)
        method.before_step(layers, step, train.lr * lr_factor)
        optimizer.step(lr_factor)
        method.after_step(layers, step, train.max_steps, optimizer)
    return Curves(np.stack(losses), np.array(floors))


def _linear(problem: LinearProblem) -> nn.Linear:
    m, n = problem.base_mn.shape
    linear = nn.Linear(n, m, bias=False, device="meta")
    linear.weight = nn.Parameter(problem.base_mn.clone())
    return linear


def _put_back(session: _Session, start: Sequence[Sequence[Tensor]], diverged: np.ndarray) -> None:
    """Reset diverged problems to their start and clear their gradients, so that no infinity reaches an SVD."""
    layers = list(session.model.values())
    with torch.no_grad():
        for index in np.flatnonzero(diverged).tolist():
            for parameter, value in zip(layers[index].parameters(), start[index], strict=True):
                parameter.copy_(value)
                if parameter.grad is not None:
                    parameter.grad.zero_()
