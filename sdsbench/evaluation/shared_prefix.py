"""The beginning that all prompts share is computed once, and every row of a batch gets a copy of its cache columns.

Prompts of one task share a template's first sentences, and few-shot prompts all of their examples. The shared tokens
occupy the first columns of the key-value cache; a row's other tokens occupy its last columns, and the columns between
them are masked. Positions count the tokens of a row, not its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from sdsbench.evaluation.key_value_cache import reserved_cache


@dataclass(frozen=True)
class SharedPrefix:
    """`length` tokens, with keys and values of each layer (1 x heads x length x head size)."""

    length: int = 0
    states: Sequence[tuple[Tensor, Tensor]] = ()

    def put_into(self, cache: Any, rows: int) -> None:
        """Fill the first columns of an empty cache for `rows` rows."""
        for layer, (keys, values) in zip(cache.layers, self.states, strict=bool(self.length)):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))


NO_PREFIX = SharedPrefix()


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens with which all prompts begin; one token of the shortest prompt is never counted."""
    columns = zip(*prompts, strict=False)
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return min(same, min(map(len, prompts), default=1) - 1)


def computed_prefix(model: Any, tokens: Sequence[int]) -> SharedPrefix:
    """The keys and values of these tokens at the start of a sequence."""
    cache = reserved_cache(model.config, len(tokens))
    ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return SharedPrefix(len(tokens), [(layer.keys, layer.values) for layer in cache.layers])
