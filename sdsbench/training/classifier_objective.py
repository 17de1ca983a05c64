"""The objective of classifiers: cross-entropy of the true class, or squared error in regression (one output)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sdsbench.tasks.classification import Batcher
from sdsbench.training.attention import padding_length
from sdsbench.training.classifier_logits import class_logits, packs


class LabelledObjective:
    """Encodes rows and computes the summed loss of a pass."""

    trains_head: ClassVar[bool] = True

    def __init__(self, batcher: Batcher, regression: bool, model: Any) -> None:
        self.batcher, self.regression, self.packed = batcher, regression, packs(model)
        self.max_length = batcher.max_length
        self.patches = patches_of(model.config)
        self.padded = not self.packed and self.patches == 1

    def encode_all(self, rows: Any) -> Sequence[Any]:
        return self.batcher.encode_all(rows)

    def check(self, model: Any, examples: Sequence[Any], device: torch.device) -> None:
        """Does nothing: the model family alone decides whether sentences are packed (classifier_logits.py)."""

    def tokens(self, examples: Sequence[Any]) -> int:
        """Tokens that a pass over the examples computes, padding included; an image counts its patches."""
        lengths = [example.length for example in examples]
        return sum(lengths) if self.packed else len(lengths) * max(lengths) * self.patches

    def positions(self, model: Any, examples: Sequence[Any], device: torch.device) -> int:
        """Positions that a pass over the examples occupies, padding included; an image counts as one."""
        positions = self.tokens(examples) // self.patches
        return positions + (padding_length(positions, model.dtype, device) if self.packed else 0)

    def longest(self, examples: Sequence[Any]) -> int:
        """Tokens of the longest example, known without decoding an image."""
        return max(self.batcher.lengths(examples)) * self.patches

    def outputs(self, model: Any, example: Any, device: torch.device, tokens: int) -> Tensor:
        """Logits of one example, fp32, of length classes; `tokens` is ignored: the head needs the whole sentence."""
        return class_logits(model, self.batcher, [example], device)[0]

    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor:
        """Loss summed over the examples of a pass (fp32 scalar)."""
        return self.losses(model, [examples], device)[0]

    def losses(self, model: Any, shares: Sequence[Sequence[Any]], device: torch.device) -> list[Tensor]:
        """The summed loss of each share of examples, from one forward pass over all of them."""
        logits_bc = class_logits(model, self.batcher, [example for share in shares for example in share], device)
        pieces = logits_bc.split([len(share) for share in shares])
        return [self._loss(piece_bc, share) for piece_bc, share in zip(pieces, shares, strict=True)]

    def _loss(self, logits_bc: Tensor, examples: Sequence[Any]) -> Tensor:
        labels_b = torch.tensor([example.label for example in examples], device=logits_bc.device)
        if self.regression:
            return functional.mse_loss(logits_bc[:, 0], labels_b, reduction="sum")
        return functional.cross_entropy(logits_bc, labels_b.long(), reduction="sum")


def patches_of(facts: Any) -> int:
    """Patches of an image plus the class token, from a model's configuration; 1 for a text model."""
    size, patch = getattr(facts, "image_size", None), getattr(facts, "patch_size", None)
    return (size // patch) ** 2 + 1 if size and patch else 1
