"""How far a method moves the model before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdsbench.methods.global_random import seeded

TOKENS = 64  # tokens of a text that are compared: the logits of a long text would be the run's memory peak


class Outputs(Protocol):
    """Computes a model's outputs for one example (an Objective, training/loop.py)."""

    def outputs(self, model: Any, example: Any, device: torch.device, tokens: int) -> Tensor: ...


class StartingPoint:
    """Stores the base model's logits on the first training example; construct it before the method is attached."""

    def __init__(self, model: Any, family: Outputs, examples: Sequence[Any], device: torch.device) -> None:
        self.model, self.family, self.example, self.device = model, family, examples[0], device
        self.logits = self._current_logits()

    def difference(self) -> float:
        """Largest absolute difference between logits of the current model and of the base model (0: they are equal)."""
        return float((self._current_logits() - self.logits).abs().max())

    def _current_logits(self) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), seeded(0, self.device):
                return self.family.outputs(self.model, self.example, self.device, TOKENS).cpu()
        finally:
            self.model.train(training)
