"""Dropout masks as a function of (seed, step): nothing to save, nothing taken from anybody's generator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Dropout:
    """Seeds the adapters' dropout generator, and torch's own for dropout inside the base model, step by step."""

    def __init__(self, model: Any, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator()
        self.base_drops = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()) or any(
            getattr(model.config, key, 0.0) > 0 for key in ("attention_dropout", "attention_probs_dropout_prob")
        )

    @contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """Inside: masks of this step; outside, torch's global generator is as it was."""
        # Hashed, because torch's CPU generator looks at the lowest 32 bits of a seed only.
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{step}".encode()).digest()[:4], "little")
        self.generator.manual_seed(seed)
        if not self.base_drops:
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
