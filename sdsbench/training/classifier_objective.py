"""The objective of classifiers: cross-entropy of the true class, or squared error for one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sdsbench.tasks.classification import Batcher
from sdsbench.training.classifier_logits import class_logits, packs


class LabelledObjective:
    """Encodes rows, computes the summed loss of micro-batches."""

    def __init__(self, batcher: Batcher, regression: bool, model: Any) -> None:
        self.batcher, self.regression, self.packed = batcher, regression, packs(model)

    def encode_all(self, rows: Any) -> Sequence[Any]:
        return self.batcher.encode_all(rows)

    def check(self, model: Any, examples: Sequence[Any], device: torch.device) -> None:
        """Nothing to decide: sentences are packed in families that are known to allow it (classifier_logits.py)."""

    def positions(self, examples: Sequence[Any]) -> int:
        """Positions that a micro-batch occupies, padding included."""
        lengths = [example.length for example in examples]
        return sum(lengths) if self.packed else len(lengths) * max(lengths)

    def outputs(self, model: Any, example: Any, device: torch.device, tokens: int) -> Tensor:
        """Logits of one example, fp32; a sentence is looked at as a whole, whatever `tokens` says."""
        return class_logits(model, self.batcher, [example], device)[0]

    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor:
        """Loss summed over the examples of a micro-batch (fp32 scalar)."""
        logits_bc = class_logits(model, self.batcher, examples, device)
        labels_b = torch.tensor([example.label for example in examples], device=device)
        if self.regression:
            return functional.mse_loss(logits_bc[:, 0], labels_b, reduction="sum")
        return functional.cross_entropy(logits_bc, labels_b.long(), reduction="sum")
