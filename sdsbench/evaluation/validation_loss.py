"""The mean loss on rows held back from training: a second criterion beside the score by which a value is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """What training computes on a micro-batch, summed over its targets."""

    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor: ...


@torch.inference_mode()
def mean_loss(model: Any, objective: Objective, examples: Sequence[Any], batch_size: int) -> float:
    """Loss per target (a token of a response, a row of a classifier), in nats, over encoded examples."""
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for start in range(0, len(examples), batch_size):
        total += float(objective.loss(model, examples[start : start + batch_size], device))
    return total / sum(example.targets for example in examples)
