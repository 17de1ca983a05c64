"""Replays gradients recorded from authors' code (tests/methods/authors/) in this package's methods and training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdsbench.methods.attach import attach
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import make_method

AUTHORS = Path(__file__).parent / "authors"
RANK = 4
_NO_OBJECTIVE: Any = SimpleNamespace(positions=lambda model, examples, device: len(examples), tokens=len)
_EXAMPLE = [[SimpleNamespace(length=1, targets=1)]]


@cache
def recorded_tensors(name: str) -> dict[str, Tensor]:
    """`LAYER.NAME` -> tensor of one file of tests/methods/authors/."""
    return load_file(AUTHORS / f"{name}.safetensors")


def layer_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the layers in a file."""
    return sorted({key.partition(".")[0] for key in tensors if key.startswith("layer")})


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest absolute difference of two entries, divided by the largest expected entry."""
    return float((found.detach().double() - expected.double()).abs().max() / expected.double().abs().max())


class Replay:
    """A model of a file's layers with a method attached, trained step by step on the file's gradients."""

    def __init__(self, file: str, method: str, train: TrainConfig | None = None, **keys: Any) -> None:
        self.tensors, self.config = recorded_tensors(file), train or TrainConfig(schedule="constant", clip_norm=None)
        self.names = layer_names(self.tensors)
        self.model = nn.ModuleDict({name: self._linear(name) for name in self.names})
        self.method = make_method(method, **{"rank": RANK, **keys})
        self.layers = attach(self.model, self.method, 0)
        self.model.config = None
        self.state = TrainState(self._optimizer(), self.method, self.layers)
        order, dropout = DataOrder(1, 1, 0), Dropout(self.model, 0)
        self.training = Training(self.model, _NO_OBJECTIVE, [], order, self.config, torch.device("cpu"), dropout)
        self.reports: list[StepReport] = []

    def _linear(self, name: str) -> nn.Linear:
        weight_mn = self.recorded(name, "W0")
        if weight_mn is None:
            m, n = self.recorded(name, "B0", "plain.B").shape[0], self.recorded(name, "A0").shape[1]  # type: ignore[union-attr]
            weight_mn = torch.zeros(m, n)
        bias_m = self.recorded(name, "bias")
        linear = nn.Linear(weight_mn.shape[1], weight_mn.shape[0], bias=bias_m is not None)
        with torch.no_grad():
            linear.weight.copy_(weight_mn)
            if bias_m is not None:
                linear.bias.copy_(bias_m)
        return linear

    def _optimizer(self) -> FlatOptimizer:
        return FlatOptimizer(optimizer_groups(self.model, self.method, [], self.config), self.config)

    def recorded(self, layer: str, *names: str) -> Tensor | None:
        """The first of these tensors that the file has for a layer, or None."""
        return next((found for name in names if (found := self.tensors.get(f"{layer}.{name}")) is not None), None)

    def set_values(self, **names: str) -> Replay:
        """Set each layer's tensors (A, B, R ...) to tensors of the file: `set_values(A="A0", B="plain.B")`."""
        for name, layer in self.layers.items():
            for own, recorded_name in names.items():
                value = self.recorded(name, recorded_name)
                assert value is not None, f"{name}.{recorded_name}"
                getattr(layer, own).detach().copy_(value)
        return self

    def backward(self, step: int, gradient: str = "G") -> None:
        """Compute gradients of the trained tensors from the loss <W, G>; G is the file's dL/dW of `step` (from 1)."""
        self.state.optimizer.zero_grad()
        loss = torch.zeros(())
        for name, layer in self.layers.items():
            gradient_mn = self.tensors[f"{name}.{gradient}"][step - 1]
            loss = loss + (layer(torch.eye(layer.in_features)) * gradient_mn.t()).sum()
        loss.backward()

    def set_gradients(self, step: int, **names: str) -> None:
        """Set gradients of the trained tensors to those of the file: `set_gradients(1, A="gA", B="gB")`."""
        self.state.optimizer.zero_grad()
        for name, layer in self.layers.items():
            for own, recorded_name in names.items():
                getattr(layer, own).grad.copy_(self.tensors[f"{name}.{recorded_name}"][step - 1])

    def update(self) -> StepReport:
        """Finish a training step with the gradients that are set: clip, call the method, step the optimizer."""
        self.reports.append(self.training.update(self.state, _EXAMPLE, 0.0, 0.0))
        return self.reports[-1]

    def largest_difference_from(self, series: str, step: int, *names: str) -> float:
        """The largest difference of the layers' tensors from those of a series of the file after `step`."""
        return max(
            largest_difference(getattr(layer, own), self.tensors[f"{name}.{series}.{own}"][step - 1])
            for (name, layer), own in itertools.product(self.layers.items(), names)
        )
