"""The objective of classifiers: cross-entropy of the true class, or squared error for one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sdsbench.tasks.labelled import Batcher


class LabelledObjective:
    """Encodes rows, pads micro-batches, computes the summed loss."""

    def __init__(self, batcher: Batcher, regression: bool) -> None:
        self.batcher, self.regression = batcher, regression

    def encode_all(self, rows: Any) -> Sequence[Any]:
        return self.batcher.encode_all(rows)

    def positions(self, examples: Sequence[Any]) -> int:
        """Positions that a micro-batch occupies, padding included."""
        return len(examples) * max(example.length for example in examples)

    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor:
        """Loss summed over the examples of a micro-batch (fp32 scalar)."""
        inputs = {name: tensor.to(device) for name, tensor in self.batcher.collate(examples).items()}
        logits_bc = model(**inputs).logits.float()
        labels_b = torch.tensor([example.label for example in examples], device=device)
        if self.regression:
            return functional.mse_loss(logits_bc[:, 0], labels_b, reduction="sum")
        return functional.cross_entropy(logits_bc, labels_b.long(), reduction="sum")
