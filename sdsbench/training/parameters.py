"""Parameter groups of the optimizer, and counts of trainable parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sdsbench.core.record import Parameters
from sdsbench.methods.base import Method
from sdsbench.training.in_backward import InBackwardAdamW
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.training_config import TrainConfig


def optimizer_groups(model: Any, method: Method, head: Sequence[nn.Parameter], config: TrainConfig) -> list[Group]:
    """Groups for the adapter (or base weights, if they train) and the head, split by weight decay and learning rate.

    Vectors (biases, norms, magnitudes, also of a head) get no weight decay unless train.decay_vectors is set. Tensors
    whose direction the method computes itself get a plain step without weight decay, whatever train.optimizer is.
    """
    in_head = {id(parameter) for parameter in head}
    rule, decay = ("sgd", 0.0) if method.update_rule == "sgd" else (config.optimizer, config.weight_decay)
    body = ("weights" if method.trains_base else "adapter", config.lr, decay, rule)
    own_head = ("head", config.head_lr or config.lr, config.weight_decay, config.optimizer)
    members: dict[tuple[str, float, float, str, torch.dtype | None], list[nn.Parameter]] = {}
    rounded = getattr(torch, method.trained_dtype) if method.trained_dtype else None
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, lr, weight_decay, its_rule = own_head if id(parameter) in in_head else body
        factor = method.learning_rate_factor(name, parameter.ndim)
        if parameter.ndim <= 1 and weight_decay and not config.decay_vectors:
            part, weight_decay = f"{part}, vectors", 0.0
        if factor != 1.0:
            part = f"{part}, {factor:g} x"
        dtype = None if id(parameter) in in_head else rounded
        members.setdefault((part, lr * factor, weight_decay, its_rule, dtype), []).append(parameter)
    return [
        Group(part, parameters, lr, weight_decay, its_rule, dtype)
        for (part, lr, weight_decay, its_rule, dtype), parameters in members.items()
    ]


def optimizer_of(groups: Sequence[Group], config: TrainConfig, seed: int) -> FlatOptimizer | InBackwardAdamW:
    """The optimizer named by train.optimizer; `seed` seeds the stochastic rounding of adamw8bit."""
    if config.optimizer == "adamw8bit":
        return InBackwardAdamW(groups, config, seed)
    return FlatOptimizer(groups, config)


def count(model: Any, head: Sequence[nn.Parameter], before: int) -> Parameters:
    """Counts of trainable parameters; `before` is the number of parameters of the model without the method."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    in_head = sum(p.numel() for p in head)
    return Parameters(trainable=trainable, adapter=trainable - in_head, total=before)
