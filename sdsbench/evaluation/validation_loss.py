"""The mean loss on rows held back from training: a criterion for tuning, in addition to the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sdsbench.training.loop import Objective


@torch.inference_mode()
def mean_loss(
    model: Any,
    objective: Objective,
    examples: Sequence[Any],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> float:
    """Loss per target (a response token, or a classifier's row), in nats, over encoded examples.

    `progress(newly finished examples)` is called after every batch and may raise.
    """
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        total += float(objective.loss(model, batch, device))
        progress(len(batch))
    return total / sum(example.targets for example in examples)
