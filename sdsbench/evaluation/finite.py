"""Refuse logits that are not finite: argmax over NaN is the first token, so a broken model would seem to answer.

All losses may be finite although the last update made the weights NaN; such a run would otherwise finish with a score
of 0 %.
"""

from __future__ import annotations

import math

from torch import Tensor

from sdsbench.core.errors import TrainingFailed


def finite(logits: Tensor) -> Tensor:
    """Return the logits (... x V) unchanged. Raises TrainingFailed if one is NaN or a row's largest is infinite."""
    largest = float(logits.detach().amax(dim=-1).sum())
    if not math.isfinite(largest):
        raise TrainingFailed(f"logits of the model: {largest}: not finite. Try a lower train.lr.")
    return logits
