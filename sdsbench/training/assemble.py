"""A method put into a model, with the loop that trains it and the state that a resumed run needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from sdsbench.methods.attach import attach
from sdsbench.methods.base import Method
from sdsbench.methods.named_tensors import FrozenAdditions, named_tensors
from sdsbench.training import activation_checkpointing
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Objective, Training
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import optimizer_groups, optimizer_of
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig


class Seeds(Protocol):
    @property
    def init(self) -> int: ...
    @property
    def data(self) -> int: ...
    @property
    def dropout(self) -> int: ...


class Trainee(Objective, Protocol):
    """An objective that names the head (such as a classifier's) that is trained along with the method."""

    def unfreeze_head(self, model: Any) -> list[nn.Parameter]: ...


def assemble(
    model: Any,
    method: Method,
    objective: Trainee,
    examples: Sequence[Any],
    config: TrainConfig,
    seeds: Seeds,
    device: torch.device,
    make_optimizer: Callable[..., Any] = optimizer_of,
    micro_tokens: int | None = None,
) -> tuple[Training, TrainState, list[nn.Parameter]]:
    """Attach the method to the model in place; return (loop, state before the first step, trained head parameters).

    `micro_tokens`: the largest number of tokens in one forward and backward pass; None: every step is one pass.

    Raises ConfigError and TrainingFailed as `attach` does, Unavailable if the optimizer's package is not installed.
    """
    base = named_tensors(model)
    layers = attach(model, method, seeds.init)
    frozen = None if method.wraps_layers() else FrozenAdditions(model, base)
    head = objective.unfreeze_head(model)
    order = DataOrder(len(examples), config.batch_size, seeds.data, config.order)
    dropout = Dropout(model, seeds.dropout)
    for layer in layers.values():
        layer.dropout_masks = dropout.masks
    if config.recomputes:
        activation_checkpointing.enable(model)
    groups = optimizer_groups(model, method, head, config)
    state = TrainState(make_optimizer(groups, config, seeds.dropout), method, layers, frozen=frozen)
    return Training(model, objective, examples, order, config, device, dropout, micro_tokens), state, head
