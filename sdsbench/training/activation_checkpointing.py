"""Keep the input of each block only, in main memory, and compute the block again in the backward pass.

Packed sequences (attention.py) go through a block in pieces of at most `PIECE` tokens (or one longer sequence), in the
forward and the backward pass, so that activations of a block exist for one piece at a time. A base model with dropout
uses a single piece, since its dropout masks are drawn for a whole pass (dropout.py), and so do runs that train side by
side, whose layers tell the runs' tokens by their place in the pass (grouped_linear.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from sdsbench.training import dropout

PIECE = 2048


def enable(model: Any, in_pieces: bool = True) -> None:
    """Switch on activation checkpointing for training, in place; without `in_pieces` a block gets a whole pass at once.

    The recomputed forward pass uses the attention implementation and the dropout masks of the first one.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _as_before(model.config, model.config._attn_implementation, dropout.place())

    def one(block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        with save_on_cpu(pin_memory=inputs[0].is_cuda):
            return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)

    def run(block: partial[Tensor], h_1td: Tensor, *others: Any) -> Tensor:
        lengths = block.keywords.get("segment_lengths")
        groups = pieces(lengths) if lengths and in_pieces and dropout.place() is None else []
        if len(groups) < 2:
            return one(block, h_1td, *others)
        outputs, start = [], 0
        for group, part in zip(groups, h_1td.split([sum(group) for group in groups], dim=1), strict=True):
            here = partial(_cut, span=slice(start, start + sum(group)), tokens=h_1td.shape[1])
            keywords = {key: here(value) for key, value in block.keywords.items()} | {"segment_lengths": group}
            outputs.append(one(partial(block.func, *block.args, **keywords), part, *map(here, others)))
            start += sum(group)
        return torch.cat(outputs, dim=1)

    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=run)


def pieces(lengths: Sequence[int]) -> list[list[int]]:
    """Sequence lengths in groups of at most PIECE tokens, in order; a longer sequence is alone."""
    groups: list[list[int]] = [[]]
    for length in lengths:
        if groups[-1] and sum(groups[-1]) + length > PIECE:
            groups.append([])
        groups[-1].append(length)
    return groups


def _cut(value: Any, span: slice, tokens: int) -> Any:
    """Slice tensors 1 x tokens x ... (and tuples of them) to a span of the tokens; return other values unchanged."""
    if isinstance(value, tuple):
        return tuple(_cut(part, span, tokens) for part in value)
    cuts = isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == tokens
    return value[:, span] if cuts else value


@contextmanager
def _as_before(config: Any, attention: str, place: int | None) -> Iterator[None]:
    current = config._attn_implementation
    config._attn_implementation = attention
    try:
        with dropout.at_place(place):
            yield
    finally:
        config._attn_implementation = current
