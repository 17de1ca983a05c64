"""Logits of a classifier for a pass; sentences for BERT and RoBERTa are packed end to end, without padding.

All layers treat each token by itself, except attention (attention.py) and the head, which reads the first token of each
sentence. The encoder's output is therefore reduced to those tokens before the model's own pooler and head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sdsbench.tasks.classification import Batcher
from sdsbench.tasks.sentences import EncodedSentence
from sdsbench.training.attention import packed, padding_length

PACKED = ("bert", "roberta", "xlm-roberta")  # attention by transformers' interface, a head on the first token


def packs(model: Any) -> bool:
    """Whether this model takes packed sentences; other models get padded batches."""
    return model.config.model_type in PACKED


def class_logits(model: Any, batcher: Batcher, examples: Sequence[Any], device: torch.device) -> Tensor:
    """Logits, fp32, examples x classes (one column for regression)."""
    if packs(model):
        return _end_to_end(model, examples, device).float()
    inputs = {name: tensor.to(device) for name, tensor in batcher.collate(examples).items()}
    return model(**inputs).logits.float()


def _end_to_end(model: Any, sentences: Sequence[EncodedSentence], device: torch.device) -> Tensor:
    lengths = [sentence.length for sentence in sentences]
    names = [name for name in sentences[0].inputs if name != "attention_mask"]
    filled = padding_length(sum(lengths), model.dtype, device)
    inputs = {
        name: torch.tensor([t for s in sentences for t in s.inputs[name]] + [0] * filled, device=device)[None]
        for name in names
    }
    first = getattr(model.base_model.embeddings, "padding_idx", -1) + 1  # RoBERTa counts from its padding index
    starts = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
    segments = [*lengths, filled] if filled else lengths
    positions = torch.cat([torch.arange(first, first + length) for length in segments]).to(device)[None]
    with packed(model), _first_tokens(model.base_model.encoder, starts):
        return model(**inputs, position_ids=positions, segment_lengths=segments).logits


@contextmanager
def _first_tokens(encoder: Any, starts_b: Tensor) -> Iterator[None]:
    """While active, the encoder's output 1 x tokens x hidden is reduced to its first tokens, b x 1 x hidden."""

    def cut(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[0, starts_b].unsqueeze(1)
        return output

    handle = encoder.register_forward_hook(cut)
    try:
        yield
    finally:
        handle.remove()
