"""Everything random in a forward pass as a function of (seed, step): nothing to save, no generator of others moves.

It is the same however the step is cut into passes (methods/dropout_masks.py). So is dropout inside the base, where its
sequences lie end to end or have one length, as all models here; a classifier that pads draws other masks with another
cut, since it pads to other lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sdsbench.methods.dropout_masks import DropoutMasks, keep_mask
from sdsbench.methods.global_random import seed_of, seeded


class Dropout:
    """Seeds, step by step, adapted layers' dropout, that of the base, and the global generators.

    Layers that a method or a model brings along may draw from the global generators.
    """

    def __init__(self, model: Any, seed: int) -> None:
        self.seed = seed
        self.masks = DropoutMasks()
        self.model = model
        self.base_drops = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()) or any(
            getattr(model.config, key, 0.0) > 0 for key in ("attention_dropout", "attention_probs_dropout_prob")
        )

    @contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """Inside: draws of this step; outside, global generators are as they were."""
        seed = seed_of(self.seed, step)
        self.masks.begin_step(seed)
        weight = next(self.model.parameters(), None)
        with seeded(seed, torch.device("cpu") if weight is None else weight.device), self._of_base():
            yield

    @contextmanager
    def _of_base(self) -> Iterator[None]:
        """Inside: torch.nn.functional's dropout, where the base has some, draws the rows of this pass."""
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


_ACTIVE: list[DropoutMasks] = []
"""The masks of the step that is being made, if its base drops something."""


def place() -> int | None:
    """How many places of dropout in the base this pass has come by; None where the base drops nothing."""
    return _ACTIVE[0].places if _ACTIVE else None


@contextmanager
def at_place(place: int | None) -> Iterator[None]:
    """Inside: what is computed again for backward draws the masks that it drew at that place of the pass."""
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
    """For a layer of attention with dropout: a seed for each of the pass's sequences; empty outside of a step."""
    if not _ACTIVE:
        return []
    masks = _ACTIVE[0]
    place = masks.next_place()
    return [seed_of(masks.step_seed, place, masks.examples_before + number) for number in range(count)]


def seed_attention(seed: int, device: torch.device) -> None:
    """Seed the generator that attention on a device draws from; `Dropout.of_step` puts it back."""
    (
        torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    ).manual_seed(seed)
