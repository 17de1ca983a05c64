"""The mean loss on rows held back from training: a second criterion beside the score by which a value is tuned."""

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
    """Loss per target (a token of a response, a row of a classifier), in nats, over encoded examples.

    `progress` is told after every batch how many more are done, and may raise.
    """
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        total += float(objective.loss(model, batch, device))
        progress(len(batch))
    return total / sum(example.targets for example in examples)
