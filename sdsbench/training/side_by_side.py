"""Several runs that share a frozen base, trained in one process: one forward and backward of the base for all.

Every run keeps its own model object (around the same weights), method, optimizer, schedule, data order and dropout
masks, and sees the losses that it sees alone. Joint is one more model object whose adapted layers serve all runs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.errors import ConfigError, Problem
from sdsbench.methods.attach import _replace
from sdsbench.training.grouped_linear import GroupedLinear, Layout
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.order import micro_batches
from sdsbench.training.state import TrainState


def with_shared_weights(model: nn.Module) -> Any:
    """A copy of the model's modules around the very same parameters: for one more run on the same base."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


@dataclass(frozen=True)
class Member:
    """One of the runs."""

    training: Training
    state: TrainState


class SideBySide:
    """The joint training of runs that differ in seeds and learning rates alone.

    `base` is a model without adapters around the weights that the members share. Raises ConfigError where runs cannot
    share a forward pass: no adapters, different steps, or dropout inside the base.
    """

    def __init__(self, base: nn.Module, members: Sequence[Member]) -> None:
        _check(members)
        self.members = members
        self.layout = Layout()
        self.model = with_shared_weights(base)
        for name in members[0].state.layers:
            layer = GroupedLinear([member.state.layers[name] for member in members], self.layout)
            _replace(self.model, name, layer)
        self.model.train()

    def run(self, after_step: Callable[[int, StepReport], None]) -> None:
        """Train all to the end; `after_step` sees (number of the run, its report) for every step and may raise to stop.

        Raises TrainingFailed on a loss or gradient that is not finite in any of them.
        """
        for member in self.members:
            member.training.model.train()
        while self.members[0].state.step < self.members[0].training.total_steps:
            for number, report in enumerate(self.step()):
                after_step(number, report)
        for member in self.members:
            member.training.model.eval()

    def step(self) -> list[StepReport]:
        """One optimizer step of every run; the seconds are shared out evenly."""
        started = time.perf_counter()
        batches = [member.training.batch(member.state.step + 1) for member in self.members]
        with ExitStack() as masks:
            for member in self.members:
                member.state.optimizer.zero_grad()
                masks.enter_context(member.training.dropout.of_step(member.state.step + 1))
            losses = self._backward(batches)
        seconds = (time.perf_counter() - started) / len(self.members)
        return [
            member.training.update(member.state, batch, loss, seconds)
            for member, batch, loss in zip(self.members, batches, losses, strict=True)
        ]

    def _backward(self, batches: Sequence[Sequence[Any]]) -> list[float]:
        """Gradients of every run's mean loss, by one backward pass a micro-batch; returns the losses."""
        first = self.members[0].training
        targets = [sum(example.targets for example in batch) for batch in batches]
        totals = [0.0] * len(batches)
        splits = [micro_batches([e.length for e in batch], first.config.accumulation) for batch in batches]
        for parts in zip(*splits, strict=True):
            shares = [[batch[i] for i in part] for batch, part in zip(batches, parts, strict=True)]
            self.layout.tokens = [sum(example.length for example in share) for share in shares]
            losses = first.objective.losses(self.model, shares, first.device)  # type: ignore[attr-defined]
            joint: Tensor = torch.stack([loss / count for loss, count in zip(losses, targets, strict=True)]).sum()
            joint.backward()
            totals = [total + loss.item() for total, loss in zip(totals, losses, strict=True)]
        return [total / count for total, count in zip(totals, targets, strict=True)]


def _check(members: Sequence[Member]) -> None:
    first = members[0]
    if not first.state.layers:
        raise _refusal("method.name", first.state.method.name, "a method that leaves the base frozen")
    if any(member.training.dropout.base_drops for member in members):
        raise _refusal("model", "dropout inside the base", "a base without dropout (its masks differ from run to run)")
    if not hasattr(first.training.objective, "losses"):
        raise _refusal("task", "padded batches", "a text task (its runs can lie end to end)")
    plans = {(m.training.total_steps, m.state.step, m.training.config.accumulation) for m in members}
    if len(plans) > 1:
        raise _refusal("train", sorted(plans), "the same steps, start and accumulation in all runs of a group")


def _refusal(key: str, value: object, accepted: str) -> ConfigError:
    return ConfigError([Problem(key, value, accepted, "These runs cannot train side by side: sweep.group_size=1.")])
