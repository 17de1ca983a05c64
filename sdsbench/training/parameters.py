"""What trains, in which group, and how much of it there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from sdsbench.core.record import Parameters
from sdsbench.methods.base import Method
from sdsbench.training.in_backward import InBackwardAdamW
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.training_config import TrainConfig


def optimizer_groups(
    model: Any, layers: Mapping[str, nn.Module], method: Method, head: Sequence[nn.Parameter], config: TrainConfig
) -> list[Group]:
    """Adapter (or weights, where the base trains) and head; vectors apart where weight decay must spare them."""
    in_head = {id(parameter) for parameter in head}
    body = [p for p in model.parameters() if p.requires_grad and id(p) not in in_head]
    rule = "sgd" if method.update_rule == "sgd" else config.optimizer
    name = "weights" if method.trains_base else "adapter"
    matrices = [p for p in body if p.ndim > 1 or not config.weight_decay]
    vectors = [p for p in body if p.ndim <= 1 and config.weight_decay]
    decay = 0.0 if rule != config.optimizer else config.weight_decay
    return [
        Group(name, matrices, config.lr, decay, rule),
        Group(f"{name}, vectors", vectors, config.lr, 0.0, rule),
        Group("head", list(head), config.head_lr or config.lr, config.weight_decay, config.optimizer),
    ]


def optimizer_of(groups: Sequence[Group], config: TrainConfig, seed: int) -> FlatOptimizer | InBackwardAdamW:
    """The optimizer that train.optimizer names; `seed` decides the rounding of adamw8bit."""
    if config.optimizer == "adamw8bit":
        return InBackwardAdamW(groups, config, seed)
    return FlatOptimizer(groups, config)


def count(model: Any, head: Sequence[nn.Parameter], before: int) -> Parameters:
    """Trainable counts; `before` is the size of the model without the method."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    in_head = sum(p.numel() for p in head)
    return Parameters(trainable=trainable, adapter=trainable - in_head, total=before)
