"""Train several runs in one process on a shared frozen base, with one joint forward and backward pass for all runs.

Every run keeps its own model object (around the same weights), method, optimizer, schedule, data order and dropout
masks, and has the losses that it has when trained alone. The joint passes use one more model object around the same
weights, whose adapted layers (grouped_linear.py) hold those of all runs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.core.errors import ConfigError, Problem, TrainingFailed
from sdsbench.methods.attach import _replace
from sdsbench.training import activation_checkpointing
from sdsbench.training.attention import padding_length
from sdsbench.training.grouped_linear import GroupedLinear, Layout
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.passes import Parts, cut, targets_of
from sdsbench.training.state import TrainState


def with_shared_weights(model: nn.Module) -> Any:
    """A copy of the model's modules that shares the parameter tensors, for another run on the same base."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


@dataclass(frozen=True, eq=False)
class Member:
    """One run of a group. `after_step` is called after each of its steps and may raise to end this run."""

    training: Training
    state: TrainState
    after_step: Callable[[StepReport], None] = lambda report: None

    @property
    def group_key(self) -> tuple[int, ...]:
        """Steps done, total steps, training rows and batch size: must be equal for runs that train together."""
        training, order = self.training, self.training.order
        return self.state.step, training.total_steps, order.rows, order.batch


Leave = Callable[[Member, Exception], None]


def _raise(member: Member, error: Exception) -> None:
    raise error


class SideBySide:
    """Joint training of runs that differ only in seeds and learning rates.

    `base` is a model without adapters around the shared weights. `restore()` undoes changes of these weights and says
    whether there were any; the member whose step made them then fails. A joint pass has at most `micro_tokens` tokens,
    divided equally among the members; None: every step is one pass. Raises ConfigError if the runs cannot share a
    forward pass: no adapters, different step counts, or dropout inside the base.
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[Member],
        restore: Callable[[], bool] = lambda: False,
        micro_tokens: int | None = None,
    ) -> None:
        _check(members)
        self.base, self._restore, self.micro_tokens = base, restore, micro_tokens
        self._join(members)

    def _join(self, members: Sequence[Member]) -> None:
        """Build the joint model of the members."""
        self.members, self.layout = list(members), Layout()
        self.model = with_shared_weights(self.base)
        first = self.members[0]
        for name in first.state.layers:
            layer = GroupedLinear([member.state.layers[name] for member in self.members], self.layout)
            _replace(self.model, name, layer)
        if first.training.config.activation_checkpointing:
            activation_checkpointing.enable(self.model, in_pieces=False)
        self.model.train()

    def run(self, leave: Leave = _raise) -> None:
        """Train until every member has finished or failed.

        Calls `leave(member, error)` for each member whose own part of a step fails (a loss or gradient that is not
        finite, a signal, a full disk); the others continue. An error of the joint pass is raised to the caller; the
        state of every member is then that after its last complete step.
        """
        for member in self.members:
            member.training.model.train()
        while self.members and self.members[0].state.step < self.members[0].training.total_steps:
            self.step(leave)
        for member in self.members:
            member.training.model.eval()

    def step(self, leave: Leave = _raise) -> list[StepReport]:
        """One optimizer step of every member; each report counts an equal share of the joint pass's seconds."""
        started = time.perf_counter()
        share = None if self.micro_tokens is None else self.micro_tokens // len(self.members)
        batches = [member.training.batch(member.state.step + 1) for member in self.members]
        steps = [
            cut(batch, share, member.training.objective.tokens)
            for member, batch in zip(self.members, batches, strict=True)
        ]
        with ExitStack() as masks:
            for member in self.members:
                optimizer = member.state.optimizer
                assert isinstance(optimizer, FlatOptimizer), "adapters have masters"
                optimizer.zero_grad()
                masks.enter_context(member.training.dropout.of_step(member.state.step + 1))
            losses = self.backward(steps)
        seconds = (time.perf_counter() - started) / len(self.members)
        size = len(self.members)
        stay, reports = [], []
        for member, parts, loss in zip(self.members, steps, losses, strict=True):
            member.state.group_size = max(size, member.state.group_size)
            try:
                report = member.training.update(member.state, parts, loss, seconds)
                if self._restore():
                    raise _writes_into_base(member)
                member.after_step(report)
            except Exception as error:
                leave(member, error)
                continue
            stay.append(member)
            reports.append(report)
        if not stay:
            self.members = []
        elif len(stay) < size:
            self._join(stay)
        return reports

    def backward(self, steps: Sequence[Parts]) -> list[float]:
        """Compute the gradients of every member's mean loss in joint passes; return these losses, one per member.

        A member with fewer passes than others contributes no tokens to the last ones.
        """
        first = self.members[0].training
        targets = [targets_of(parts) for parts in steps]
        totals = [0.0] * len(steps)
        for shares in zip_longest(*steps, fillvalue=()):
            self.layout.tokens = [first.objective.tokens(share) for share in shares]
            for member, share, tokens in zip(self.members, shares, self.layout.tokens, strict=True):
                member.training.dropout.masks.begin_pass(len(share), tokens)
            # Padding tokens carry no loss, so they can be counted as the last member's without changing its gradient.
            self.layout.tokens[-1] += padding_length(sum(self.layout.tokens), self.model.dtype, first.device)
            losses = first.objective.losses(self.model, shares, first.device)
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
    if first.training.objective.trains_head:
        raise _refusal("task", "a head that trains", "a text task (its runs can lie end to end)")
    if first.training.objective.padded:
        raise _refusal("model", "a model that trains in padded batches", "a model whose sequences can lie end to end")
    keys = {member.group_key for member in members}
    if len(keys) > 1:
        accepted = "the same steps done, steps, examples and batch in all runs of a group"
        raise _refusal("train", sorted(keys), accepted)


def _writes_into_base(member: Member) -> TrainingFailed:
    return TrainingFailed(
        f"step {member.state.step}: method={member.state.method.name} changes base weights that other runs share. It "
        "cannot train side by side: sweep.group_size=1. The state of an earlier step is saved."
    )


def _refusal(key: str, value: object, accepted: str) -> ConfigError:
    return ConfigError([Problem(key, value, accepted, "These runs cannot train side by side: sweep.group_size=1.")])
