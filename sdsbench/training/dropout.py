"""Dropout as a function of (seed, step): no generator state has to be saved, and no global generator advances.

Dropout masks do not depend on how a step is split into passes (methods/dropout_masks.py). For dropout inside the base
model this holds if sequences are packed or of equal length. A classifier with padded batches draws other masks under
another split, since it pads to other lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsbench.methods.dropout_masks import DropoutMasks, keep_mask
from sdsbench.methods.global_random import seed_of, seeded


class Dropout:
    """Seeds every step's randomness: dropout of adapted layers, dropout of the base model, and the global generators.

    The global generators are seeded because layers of a plugin or a foreign model may draw from them.
    """

    def __init__(self, model: Any, seed: int) -> None:
        self.seed = seed
        self.masks = DropoutMasks()
        self.model = model
        self.base_drops = attention_dropout(model.config) > 0 or any(map(_drops, model.modules()))

    @contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """While active, random draws are those of `step`; on exit the global generators are restored."""
        seed = seed_of(self.seed, step)
        self.masks.begin_step(seed)
        weight = next(self.model.parameters(), None)
        with seeded(seed, torch.device("cpu") if weight is None else weight.device), self._of_base():
            yield

    @contextmanager
    def _of_base(self) -> Iterator[None]:
        """While active, functional.dropout of torch uses this pass's masks; no effect on a base without dropout."""
        if not self.base_drops:
            yield
            return
        plain, active = functional.dropout, _ACTIVE[:]

        def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            if not training or not 0 < p < 1:
                return plain(input, p, training, inplace)
            rows = input.reshape(-1, input.shape[-1])
            mask = keep_mask(rows, 1 - p, *self.masks.of_layer(self.masks.next_place(), len(rows)))
            return input.masked_fill(mask.view_as(input) == 0, 0.0) / (1 - p)

        functional.dropout = dropout
        _ACTIVE[:] = [self.masks]
        try:
            yield
        finally:
            functional.dropout, _ACTIVE[:] = plain, active


def attention_dropout(architecture: Any) -> float:
    """The share of attention weights that a model drops in training, from its transformers configuration."""
    names = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")  # Llama's, BERT's, GPT-2's
    return max(float(getattr(architecture, name, None) or 0.0) for name in names)


def _drops(module: nn.Module) -> bool:
    """Whether a module drops values in training.

    OPT, BART and others have no nn.Dropout: their layers call functional.dropout, or leave out whole paths (Swin). They
    keep the probability as a number whose name tells, such as `dropout`, `residual_dropout` or `drop_prob`.
    """
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return any("drop" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())


_ACTIVE: list[DropoutMasks] = []
"""Dropout masks of the current step; empty outside a step or if the base model has no dropout."""


def place() -> int | None:
    """Number of dropout calls of the base model so far in this pass; None if the base model has no dropout."""
    return _ACTIVE[0].places if _ACTIVE else None


@contextmanager
def at_place(place: int | None) -> Iterator[None]:
    """While active, recomputed layers (activation checkpointing) draw the masks of their first forward pass.

    `place` is what `place()` returned there.
    """
    if place is None:
        yield
        return
    masks = _ACTIVE[0]
    current, masks.places = masks.places, place
    try:
        yield
    finally:
        masks.places = current


def segment_seeds(count: int) -> list[int]:
    """One dropout seed for each of `count` sequences in an attention layer; empty if no base dropout is active."""
    if not _ACTIVE:
        return []
    masks = _ACTIVE[0]
    place = masks.next_place()
    return [seed_of(masks.step_seed, place, masks.examples_before + number) for number in range(count)]


def seed_attention(seed: int, device: torch.device) -> None:
    """Seed the generator that attention on `device` draws from; `Dropout.of_step` restores it."""
    (
        torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    ).manual_seed(seed)
