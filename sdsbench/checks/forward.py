"""How far a model's forward pass is from causal, and how far packing changes its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdsbench.training.loop import Training


@torch.no_grad()
def logits_of(model: Any, ids_bt: Tensor) -> Tensor:
    """The model's logits, b x t x vocabulary; puts the model into evaluation mode."""
    return model.eval()(input_ids=ids_bt, use_cache=False).logits


def largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def change_of_past(model: Any, ids: Sequence[int]) -> float:
    """Largest change of a logit in the first half of a text when the order of the later tokens is reversed.

    0 for a causal model.
    """
    text, half = torch.tensor([ids], device=model.device), len(ids) // 2
    later = torch.cat([text[:, :half], text[:, half:].flip(1)], 1)
    return largest_difference(logits_of(model, later)[:, :half], logits_of(model, text)[:, :half])


@torch.no_grad()
def change_by_packing(training: Training, examples: Sequence[Any]) -> float:
    """Relative difference between the summed loss of the examples in one pass and in one pass each; puts the model into
    evaluation mode."""
    objective, model, device = training.objective, training.model.eval(), training.device
    packed = objective.loss(model, examples, device)
    alone = torch.stack([objective.loss(model, [example], device) for example in examples]).sum()
    return float(((packed - alone) / alone).abs())
