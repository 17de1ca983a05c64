"""Check, before training, that the training loss equals the loss that a decoder computes itself.

Packed rows go through this project's attention, and only the output layer's weight makes the logits (causal.py). For
most architectures this gives the model's own loss. It does not if the model scales its logits, adds a bias to them, or
mixes tokens in another way (ALiBi, attention sinks, state spaces). Such models train on padded batches through their
own forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sdsbench.core.errors import Unavailable
from sdsbench.models.positions import check_length
from sdsbench.models.quiet import quiet
from sdsbench.training.tokens import EncodedText

Losses = Callable[[Any, Sequence[Sequence[EncodedText]], torch.device], list[Tensor]]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Accepted relative difference of a sequence's loss, above what summation order causes (2e-7 measured in fp32)."""
TOLERANCE_16_BIT = 2e-3
_CANDIDATES = 64  # the compared examples are chosen from the first so many


def needs_padding(model: Any, packed: Losses, examples: Sequence[EncodedText], device: torch.device) -> bool:
    """Whether the model must train in padded batches, because packed rows do not give its own loss.

    Raises Unavailable if padded batches do not give it either, if the model's own loss is not finite, or if the model
    has no embedding for a token or a position.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(max(example.ids) for example in examples)
    if largest >= rows:
        raise Unavailable(f"the tokenizer gives the token {largest}; accepted: below {rows}, the rows of the embedding")
    longest = max(example.length for example in examples)
    check_length(model, longest, "a training row", "A smaller train.max_length cuts longer ones.")
    some = _shortest_and_longest(examples)
    with quiet():  # hides transformers' warning that GPT-2's configuration names no loss
        own = [_own_loss(model, example, device) for example in some]
    if not all(map(math.isfinite, own)):
        raise Unavailable(f"the loss of the untrained model is {own[0]}: its weights do not fit its configuration")
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE_16_BIT)
    if _difference(packed, model, some, own, device) <= tolerance:
        return False
    found = _difference(padded_losses, model, some, own, device)
    if found > tolerance:
        raise Unavailable(
            f"a {model.config.model_type} model cannot be trained here: the loss of its padded batches is "
            f"{100 * found:.2g} % off its own loss of single sequences (accepted: {100 * tolerance:g} %)"
        )
    return True


def padded_losses(model: Any, shares: Sequence[Sequence[EncodedText]], device: torch.device) -> list[Tensor]:
    """The summed loss of each share of examples through the model's own forward pass, padded on the right."""
    examples = [example for share in shares for example in share]
    width = max(example.length for example in examples)
    ids = torch.tensor([[*example.ids, *[0] * (width - example.length)] for example in examples], device=device)
    mask = torch.tensor([[1] * e.length + [0] * (width - e.length) for e in examples], device=device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    losses, start = [], 0
    for share in shares:
        pieces: list[Tensor] = []
        labels: list[int] = []
        for row, example in enumerate(share, start):
            first = max(example.first_target, 1)
            pieces.append(logits[row, first - 1 : example.length - 1])
            labels += example.ids[first:]
        targets = torch.tensor(labels, dtype=torch.long, device=device)
        losses.append(functional.cross_entropy(torch.cat(pieces).float(), targets, reduction="sum"))
        start += len(share)
    return losses


def _shortest_and_longest(examples: Sequence[EncodedText]) -> list[EncodedText]:
    """The longest and the shortest of the first examples: a micro-batch that needs padding."""
    by_length = sorted(examples[:_CANDIDATES], key=lambda example: example.length)
    return by_length[-1:] + by_length[:1]


@torch.no_grad()
def _own_loss(model: Any, example: EncodedText, device: torch.device) -> float:
    """The model's own loss of a single sequence, in nats, summed over the target tokens."""
    ids = torch.tensor([example.ids], device=device)
    labels = ids.clone()
    labels[:, : example.first_target] = -100
    return float(model(input_ids=ids, labels=labels, use_cache=False).loss) * example.targets


@torch.no_grad()
def _difference(
    losses: Losses, model: Any, examples: Sequence[EncodedText], own: Sequence[float], device: torch.device
) -> float:
    """The largest relative difference of a sequence's loss; infinite if the model does not accept this layout."""
    try:
        found = [float(loss) for loss in losses(model, [[example] for example in examples], device)]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # unsupported architectures raise errors of many types
        return math.inf
    differences = [abs(loss - right) / abs(right) for loss, right in zip(found, own, strict=True)]
    return math.inf if any(map(math.isnan, differences)) else max(differences)
