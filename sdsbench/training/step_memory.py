"""The peak memory of a training step on a GPU, counted without a GPU on meta tensors (meta_device.py).

Equal blocks add equal bytes, so a few blocks are counted and the rest is extrapolated. A step has three parts; the peak
of each grows linearly with the number of blocks, and the largest of the three is the peak of the step:

* forward, and backward down to the first blocks: all saved activations exist, with the logits or a block's gradients;
* backward of the first blocks and the embedding: few activations are left, with the gradient of the embedding;
* the optimizer's update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.training.in_backward import CHUNK, UPDATE_BYTES, held_bytes
from sdsbench.training.loop import Training
from sdsbench.training.meta_device import as_on_cuda
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.parameters import optimizer_of
from sdsbench.training.saved_bytes import PeakBytes
from sdsbench.training.side_by_side import Member, SideBySide
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig

PARTS = 3


@dataclass(frozen=True)
class CountedStep:
    """A training step on meta tensors, ready to run."""

    model: Any  # the model whose blocks run one after the other
    passes: Callable[[], object]  # runs forward and backward
    update: Callable[[], object]  # runs the optimizer's update


def peak_bytes(step_at: Callable[[int], CountedStep], layers: int, kinds: Sequence[Any] | None = None) -> int:
    """Peak bytes, weights and optimizer state included, of a step of a model with `layers` blocks.

    `step_at(depth)` builds the step for a model with only the first `depth` blocks. `kinds` gives the type of each
    block for models whose blocks differ (Gemma-2 alternates full and sliding-window attention).
    """
    period = _period(kinds or [None] * layers)
    few = 2 * period + layers % period
    more = few + period
    if more >= layers:
        return max(_peaks(step_at, layers, period))
    fewer, larger = (_peaks(step_at, depth, period) for depth in (few, more))
    return max(
        peak + (next_peak - peak) * ((layers - few) // period) for peak, next_peak in zip(fewer, larger, strict=True)
    )


def _period(kinds: Sequence[Any]) -> int:
    """Number of blocks after which the sequence of kinds repeats."""
    return next(p for p in range(1, len(kinds) + 1) if list(kinds[p:]) == list(kinds[:-p]))


def _peaks(step_at: Callable[[int], CountedStep], depth: int, first: int) -> list[int]:
    """Peak bytes of each part; the first part ends when backward has reached the output of the first `first` blocks."""
    with as_on_cuda(), PeakBytes("meta") as live:
        step = step_at(depth)
        parts = _Parts(live)
        if first < depth:
            _blocks(step.model, depth)[first].register_forward_pre_hook(parts.end_first_at_gradient)
        step.passes()
        parts.enter(2)
        step.update()
        parts.enter(PARTS)
    return parts.peaks


def _blocks(model: nn.Module, depth: int) -> nn.ModuleList:
    """The model's blocks: its first list of that many modules."""
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


@dataclass
class _Parts:
    """Records the peak of live bytes separately for each part of a step."""

    live: PeakBytes
    part: int = 0
    peaks: list[int] = field(default_factory=lambda: [0] * PARTS)

    def __post_init__(self) -> None:
        self.live.peak = self.live.now

    def enter(self, part: int) -> None:
        """Begin `part`; ignored if a later part has already begun."""
        if part > self.part:
            self.peaks[self.part] = self.live.peak
            self.live.peak, self.part = self.live.now, part

    def end_first_at_gradient(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Forward pre-hook of a block: the second part begins once backward has computed the gradient of its input."""
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda _: self.enter(1))


def step_of(training: Training, state: TrainState, examples: Sequence[Any]) -> CountedStep:
    """The step of a single run, in one pass over `examples`."""
    return _step(training.model, [Member(training, state)], lambda: training.backward([examples]), examples)


def joint_step_of(base: nn.Module, members: Sequence[Member], examples: Sequence[Any]) -> CountedStep:
    """The joint step of several runs (side_by_side.py), each on the same `examples`."""
    joint = SideBySide(base, members)
    return _step(joint.model, members, lambda: joint.backward([[examples]] * len(members)), examples)


def _step(
    model: Any, members: Sequence[Member], backward: Callable[[], object], examples: Sequence[Any]
) -> CountedStep:
    flat = [member for member in members if isinstance(member.state.optimizer, FlatOptimizer)]
    for member in flat:
        _make_moments(member.state.optimizer)  # type: ignore[arg-type]

    def passes() -> None:
        with ExitStack() as masks:
            for member in members:
                masks.enter_context(member.training.dropout.of_step(1))
            backward()

    def update() -> None:
        for member in flat:
            member.training.update(member.state, [examples], 1.0, 0.0)

    return CountedStep(model, passes, update)


def _make_moments(optimizer: FlatOptimizer) -> None:
    """Allocate the moments of a first step; AdamW's fused kernel does not allocate them on meta tensors."""
    for flat, one in zip(optimizer.flat, optimizer.optimizers, strict=True):
        if isinstance(one, torch.optim.AdamW):
            moments = {key: torch.zeros_like(flat) for key in ("exp_avg", "exp_avg_sq")}
            one.state[flat] = {"step": torch.zeros(()), **moments}
        else:
            one.step()


def optimizer_in_memory(groups: Sequence[Group], config: TrainConfig, seed: int) -> Any:
    """The optimizer named by train.optimizer; adamw8bit is replaced by tensors of its size, to do without torchao."""
    return InBackwardMemory(groups) if config.optimizer == "adamw8bit" else optimizer_of(groups, config, seed)


class InBackwardMemory:
    """Allocates as many bytes as InBackwardAdamW, and frees gradients when it does."""

    def __init__(self, groups: Sequence[Group]) -> None:
        parameters = [parameter for group in groups for parameter in group.parameters]
        self.held = [_bytes(held_bytes(parameter.numel()), parameter) for parameter in parameters]
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._free_gradient)

    @staticmethod
    def _free_gradient(parameter: Tensor) -> None:
        _bytes(UPDATE_BYTES * min(CHUNK, parameter.numel()), parameter)
        parameter.grad = None


def _bytes(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)
