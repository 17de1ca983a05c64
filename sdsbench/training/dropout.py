"""Everything random in a forward pass as a function of (seed, step): nothing to save, no generator of others moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdsbench.methods.global_random import seed_of, seeded


class Dropout:
    """Seeds, step by step, the generator of adapted layers' dropout and the global generators.

    Dropout inside the base draws from torch's global generator, and so do layers that a method brings along.
    """

    def __init__(self, model: Any, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator()
        self.model = model
        self.base_drops = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()) or any(
            getattr(model.config, key, 0.0) > 0 for key in ("attention_dropout", "attention_probs_dropout_prob")
        )

    @contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """Inside: draws of this step; outside, global generators are as they were."""
        seed = seed_of(self.seed, step)
        self.generator.manual_seed(seed)
        weight = next(self.model.parameters(), None)
        with seeded(seed, torch.device("cpu") if weight is None else weight.device):
            yield
