"""How far a method moves the model before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdsbench.methods.global_random import seeded

TOKENS = 64  # of a text that are looked at: the logits of a long one would be the memory peak of the run


class Outputs(Protocol):
    """What a task's family says of a model's outputs."""

    def outputs(self, model: Any, example: Any, device: torch.device, tokens: int) -> Tensor: ...


class StartingPoint:
    """The base model's logits on the first training example: build it before the method is put into the model."""

    def __init__(self, model: Any, family: Outputs, examples: Sequence[Any], device: torch.device) -> None:
        self.model, self.family, self.example, self.device = model, family, examples[0], device
        self.logits = self._look()

    def difference(self) -> float:
        """The largest absolute difference of a logit between the model now and the base model (0: it starts there)."""
        return float((self._look() - self.logits).abs().max())

    def _look(self) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), seeded(0, self.device):
                return self.family.outputs(self.model, self.example, self.device, TOKENS).cpu()
        finally:
            self.model.train(training)
