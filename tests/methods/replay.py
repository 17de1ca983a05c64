"""Gradients of the papers' own code (tests/methods/authors/) through the methods and the update of real training."""

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
def authors(name: str) -> dict[str, Tensor]:
    """The numbers of one file, by `LAYER.NAME`."""
    return load_file(AUTHORS / f"{name}.safetensors")


def names_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """The layers of a file."""
    return sorted({key.partition(".")[0] for key in tensors if key.startswith("layer")})


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Of an entry, relative to the largest entry expected."""
    return float((found.detach().double() - expected.double()).abs().max() / expected.double().abs().max())


class Replay:
    """The layers of a file as one model with a method in it, and its training, step by step."""

    def __init__(self, file: str, method: str, train: TrainConfig | None = None, **keys: Any) -> None:
        self.tensors, self.config = authors(file), train or TrainConfig(schedule="constant", clip_norm=None)
        self.names = names_of(self.tensors)
        self.model = nn.ModuleDict({name: self._linear(name) for name in self.names})
        self.method = make_method(method, **{"rank": RANK, **keys})
        self.layers = attach(self.model, self.method, 0)
        self.model.config = None
        self.state = TrainState(self._optimizer(), self.method, self.layers)
        order, dropout = DataOrder(1, 1, 0), Dropout(self.model, 0)
        self.training = Training(self.model, _NO_OBJECTIVE, [], order, self.config, torch.device("cpu"), dropout)
        self.reports: list[StepReport] = []

    def _linear(self, name: str) -> nn.Linear:
        weight_mn = self.of(name, "W0")
        if weight_mn is None:
            m, n = self.of(name, "B0", "plain.B").shape[0], self.of(name, "A0").shape[1]  # type: ignore[union-attr]
            weight_mn = torch.zeros(m, n)
        bias_m = self.of(name, "bias")
        linear = nn.Linear(weight_mn.shape[1], weight_mn.shape[0], bias=bias_m is not None)
        with torch.no_grad():
            linear.weight.copy_(weight_mn)
            if bias_m is not None:
                linear.bias.copy_(bias_m)
        return linear

    def _optimizer(self) -> FlatOptimizer:
        return FlatOptimizer(optimizer_groups(self.model, self.method, [], self.config), self.config)

    def of(self, layer: str, *names: str) -> Tensor | None:
        """The first of these tensors that the file has for a layer."""
        return next((found for name in names if (found := self.tensors.get(f"{layer}.{name}")) is not None), None)

    def put(self, **names: str) -> Replay:
        """Start each layer's tensors (A, B, R ...) at those of the file: `put(A="A0", B="plain.B")`."""
        for name, layer in self.layers.items():
            for own, theirs in names.items():
                value = self.of(name, theirs)
                assert value is not None, f"{name}.{theirs}"
                getattr(layer, own).detach().copy_(value)
        return self

    def backward(self, step: int, gradient: str = "G") -> None:
        """Gradients of the trained tensors where dL/dW is that of step `step` (from 1): L = <W, G>."""
        self.state.optimizer.zero_grad()
        loss = torch.zeros(())
        for name, layer in self.layers.items():
            gradient_mn = self.tensors[f"{name}.{gradient}"][step - 1]
            loss = loss + (layer(torch.eye(layer.in_features)) * gradient_mn.t()).sum()
        loss.backward()

    def give(self, step: int, **names: str) -> None:
        """Gradients of the trained tensors as the file gives them: `give(1, A="gA", B="gB")`."""
        self.state.optimizer.zero_grad()
        for name, layer in self.layers.items():
            for own, theirs in names.items():
                getattr(layer, own).grad.copy_(self.tensors[f"{name}.{theirs}"][step - 1])

    def update(self) -> StepReport:
        """The second half of a training step: clipping, the method, the optimizer."""
        self.reports.append(self.training.update(self.state, _EXAMPLE, 0.0, 0.0))
        return self.reports[-1]

    def worst(self, series: str, step: int, *names: str) -> float:
        """The largest difference of the layers' tensors after `step` from those of a series of the file."""
        return max(
            largest_difference(getattr(layer, own), self.tensors[f"{name}.{series}.{own}"][step - 1])
            for (name, layer), own in itertools.product(self.layers.items(), names)
        )
