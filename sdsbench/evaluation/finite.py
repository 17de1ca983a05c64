"""Answers of a model that the last step spoiled are no answers: the largest of numbers that are none is the first one.

Every loss of a step may have been finite and the weights after the last one not; such a run would end done, at 0 %.
"""

from __future__ import annotations

import math

from torch import Tensor

from sdsbench.core.errors import TrainingFailed


def finite(logits: Tensor) -> Tensor:
    """The logits (... x V) themselves. Raises TrainingFailed where one is nan or the largest of a row infinite."""
    largest = float(logits.detach().amax(dim=-1).sum())
    if not math.isfinite(largest):
        raise TrainingFailed(f"logits of the model: {largest}: not finite. Try a lower train.lr.")
    return logits
