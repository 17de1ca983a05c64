"""A batch of rows that are answered token by token, in which a row that has ended makes room for another prompt.

All rows end at the same column of the cache; a row's own tokens are the last ones before it, and what lies to the left
is masked. So a new prompt of w tokens, computed by itself, takes the last w columns of a row that has ended. When the
columns are used up, those on the left that no open row needs are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdsbench.evaluation.cache import ReservedLayer, reserved_cache

SLACK = 64  # columns beyond the longest row, so that dropping columns is rare


class Decoding:
    """The rows of a batch; `capacity`: the most tokens of a prompt with its answer. `pad`: any token."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], capacity: int, pad: int) -> None:
        self.model, self.pad, self.device = model, pad, next(model.parameters()).device
        self.capacity = capacity + SLACK
        self.cache = reserved_cache(model.config, self.capacity)
        self.tokens, self.mask, self.positions = self._read(prompts, self.cache)
        """The newest token of each row (b), the columns that belong to it (b x columns), its position (b x 1)."""
        self.replaceable = all(isinstance(layer, ReservedLayer) for layer in self.cache.layers)
        """Whether rows can be replaced: layers with a sliding window keep columns of their own."""

    def step(self, open_rows: Sequence[int]) -> None:
        """The next token of every row; what it is in rows that have ended does not matter."""
        if self.mask.shape[1] >= self.capacity:
            self._drop_columns(open_rows)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.positions = self.positions + 1
        logits = last_logits(self.model, self.tokens[:, None], self.mask, self.positions, self.cache)
        self.tokens = logits.argmax(dim=-1)

    def replace(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Put prompts, none longer than an open row, into rows that have ended; their first tokens are made."""
        width, columns = max(map(len, prompts)), self.mask.shape[1]
        cache, at = reserved_cache(self.model.config, width), torch.tensor(rows, device=self.device)
        self.tokens[at], mask, self.positions[at] = self._read(prompts, cache)
        self.mask[at] = torch.nn.functional.pad(mask, (columns - width, 0))
        for layer, new in zip(self.cache.layers, cache.layers, strict=True):
            layer.put_last(at, new)

    def end(self, rows: Sequence[int]) -> None:
        """Rows that have ended wait for a prompt; their positions start anew, so that they never get too large."""
        self.positions[rows] = -1

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows go on."""
        at = torch.tensor(rows, device=self.device)
        self.cache.batch_select_indices(at)
        self.tokens, self.mask, self.positions = self.tokens[at], self.mask[at], self.positions[at]

    def _read(self, prompts: Sequence[Sequence[int]], cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Put prompts into an empty cache; (first new token, mask, position of the last token) of each."""
        ids, mask = padded(prompts, self.pad, self.device)
        positions = positions_of(mask)
        tokens = last_logits(self.model, ids, mask, positions, cache).argmax(dim=-1)
        return tokens, mask, positions[:, -1:]

    def _drop_columns(self, open_rows: Sequence[int]) -> None:
        """Forget columns on the left, as many as all open rows can spare."""
        needed = int(self.mask[list(open_rows)].sum(dim=1).max())
        self.mask = self.mask[:, -needed:]
        for layer in self.cache.layers:
            layer.keep_last(needed)


def last_logits(model: Any, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """Logits of the token after each row (b x V); `inputs` are the columns that the cache does not hold yet."""
    output = model(
        input_ids=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return output.logits[:, -1]


def positions_of(mask: Tensor) -> Tensor:
    """Positions counted from the first real token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, mask) of prompts padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
