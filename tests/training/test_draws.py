"""Whatever a forward pass draws, from whichever global generator, depends on the run's seed and the step alone."""

from __future__ import annotations

import random

import numpy as np
import torch

from sdsbench.methods.dropout_masks import keep_mask
from sdsbench.training.dropout import Dropout
from tests.methods.tiny import tiny_model


def draws(dropout: Dropout, step: int) -> tuple[object, ...]:
    with dropout.of_step(step):
        own = keep_mask(torch.ones(64), 0.5, *dropout.masks.of_layer("layer", 64)).tolist()
        return torch.rand(()).item(), float(np.random.rand()), random.random(), own


def test_draws_follow_seed_and_step_and_leave_global_generators_alone() -> None:
    model = tiny_model("decoder")
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    outside = torch.rand(()).item(), float(np.random.rand()), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    first = draws(Dropout(model, 0), 4)
    assert outside == (torch.rand(()).item(), float(np.random.rand()), random.random())
    assert draws(Dropout(model, 0), 4) == first, "wherever the generators were before"
    for other in (draws(Dropout(model, 0), 5), draws(Dropout(model, 1), 4)):
        assert all(a != b for a, b in zip(first, other, strict=True))
