"""Greedy decoding of a batch, token by token, in which a new prompt replaces each finished row.

All rows end at the same column of the key-value cache; a row's tokens occupy its last columns, and the columns to their
left are masked. A new prompt of w tokens is computed in a separate pass and written to the last w columns of a finished
row. When all columns are used, those on the left that no unfinished row needs are dropped. A beginning that all prompts
share keeps the first columns (shared_prefix.py); "tokens of a row" then means those after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from sdsbench.core.console import print_now
from sdsbench.core.texts import short_message
from sdsbench.evaluation.finite import finite
from sdsbench.evaluation.key_value_cache import reserved_cache, reserves_all
from sdsbench.evaluation.shared_prefix import NO_PREFIX, SharedPrefix
from sdsbench.evaluation.static_step import StaticStep, Steps, reason_against_static_steps

SLACK = 64  # spare columns beyond the longest row, so that columns are dropped rarely


class Decoding:
    """The rows of a batch. `capacity`: largest number of tokens of a prompt and its answer; `pad`: any token id.

    `prefix`: the beginning of all prompts, also of those that will replace these.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        capacity: int,
        pad: int,
        steps: Steps = "plain",
        prefix: SharedPrefix = NO_PREFIX,
    ) -> None:
        self.model, self.pad, self.device = model, pad, next(model.parameters()).device
        self.prefix = prefix
        self.capacity = capacity + SLACK
        self.cache = reserved_cache(model.config, self.capacity)
        self.tokens, mask, self.positions = self._read(prompts, self.cache)
        """The newest token of each row (b) and its position (b x 1)."""
        self.columns = mask.shape[1]  # in use
        self.mask = torch.nn.functional.pad(mask, (0, self.capacity - self.columns))
        """The columns that belong to each row (b x capacity)."""
        self.replaceable = reserves_all(self.cache)
        """Whether finished rows can be replaced: not with sliding-window layers, which keep other columns."""
        self.static: StaticStep | None = None
        if steps != "plain":
            self._begin_static_steps(captured=steps == "captured")

    @property
    def shrinks(self) -> bool:
        """Whether finished rows may be removed: not with static steps, whose number of rows is fixed."""
        return self.static is None

    def step(self, open_rows: Sequence[int]) -> None:
        """Compute the next token of every row into `tokens`; the values in finished rows are meaningless."""
        if self.columns == self.capacity:
            self._drop_columns(open_rows)
        self.columns += 1
        if self.static is not None:
            try:
                return self.static(self.columns)
            except Exception as error:  # the model contains an operation that cannot be captured, or capture failed
                self._set_cache_columns(self.columns - 1)
                self._decode_plainly(short_message(error))
        logits = self._plain_logits()
        self.positions = self.positions + 1
        self.tokens = logits.argmax(dim=-1)

    def replace(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Put prompts, none longer than an unfinished row, into finished rows and compute their first new tokens."""
        self._set_cache_columns(self.columns)
        first = self.prefix.length
        width = max(map(len, prompts)) - first
        cache, at = reserved_cache(self.model.config, first + width), torch.tensor(rows, device=self.device)
        self.tokens[at], mask, self.positions[at] = self._read(prompts, cache)
        self.mask[at] = torch.nn.functional.pad(mask[:, first:], (self.columns - width, self.capacity - self.columns))
        self.mask[at, :first] = 1
        for layer, new in zip(self.cache.layers, cache.layers, strict=True):
            layer.put_last(at, new, width)

    def end(self, rows: Sequence[int]) -> None:
        """Mark rows as finished: their positions restart, so that they stay below the model's limit."""
        self.positions[rows] = -1

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all other rows from the batch."""
        at = torch.tensor(rows, device=self.device)
        self.cache.batch_select_indices(at)
        self.tokens, self.mask, self.positions = self.tokens[at], self.mask[at], self.positions[at]

    def _read(self, prompts: Sequence[Sequence[int]], cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Fill an empty cache with prompts; return first new tokens (b), mask (b x columns), last positions (b x 1)."""
        logits, mask, positions = read(self.model, prompts, self.pad, cache, self.prefix)
        return finite(logits).argmax(dim=-1), mask, positions

    def _plain_logits(self) -> Tensor:
        """Logits (b x V) that follow the newest tokens, whose keys and values go to the last column in use."""
        self.mask[:, self.columns - 1] = 1
        seen, positions = self.mask[:, : self.columns], self.positions + 1
        return last_logits(self.model, self.tokens[:, None], seen, positions, self.cache)

    def _drop_columns(self, open_rows: Sequence[int]) -> None:
        """Drop the columns on the left, after those of the prefix, that no unfinished row uses."""
        self._set_cache_columns(self.columns)
        first = self.prefix.length
        needed = int(self.mask[list(open_rows), first:].sum(dim=1).max())
        self.mask[:, first : first + needed] = self.mask[:, self.columns - needed : self.columns].clone()
        self.mask[:, first + needed :] = 0
        self.columns = first + needed
        for layer in self.cache.layers:
            layer.keep_ends(first, needed)

    def _set_cache_columns(self, columns: int) -> None:
        """Set the number of columns in use of the cache, which static steps fill without updating that number."""
        if self.static is not None:
            for layer in self.cache.layers:
                layer.use(columns)

    def _begin_static_steps(self, captured: bool) -> None:
        """Switch to static steps if their logits equal those of a plain step; else print the reason once."""
        reason = reason_against_static_steps(self.model, self.cache)
        if reason is None:
            logits = partial(last_logits, self.model)
            self.static = StaticStep(
                logits, self.model.dtype, self.tokens, self.positions, self.mask, self.cache, captured
            )
            reason = self._difference(self.static)
        if reason is not None:
            self._decode_plainly(reason)

    def _difference(self, static: StaticStep) -> str | None:
        """Description of how the logits of a static step differ from those of a plain step; None if they agree."""
        self.columns += 1
        try:
            expected = self._plain_logits()
            different = logit_difference(static.logits(self.columns), expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models that do not support this mask or cache raise errors of many types
            return short_message(error)
        finally:
            self.columns -= 1
            self.mask[:, self.columns] = 0
            self._set_cache_columns(self.columns)
        if not different <= logit_tolerance(self.model.dtype):
            return f"logits of a static step are off by {different:.2g} standard deviations of a logit"
        return None

    def _decode_plainly(self, reason: str) -> None:
        self.static = None
        log_once(f"answers are decoded kernel by kernel (slower, the same answers): {reason}")


@lru_cache
def log_once(line: str) -> None:
    """Print a line unless it was printed before."""
    print_now(line)


def logit_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference between two sets of logits (b x V), in standard deviations of a row's logits."""
    found, expected = found.float(), expected.float()
    return float(((found - expected).abs().amax(dim=-1) / expected.std(dim=-1)).max())


def logit_tolerance(dtype: torch.dtype) -> float:
    """Accepted `logit_difference` between logits whose sums were computed in another order."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.3


def read(
    model: Any, prompts: Sequence[Sequence[int]], pad: int, cache: Any, prefix: SharedPrefix
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill an empty cache with prompts, which all begin with the prefix.

    Returns logits of the first new tokens (b x V), mask (b x columns), positions of the prompts' last tokens (b x 1).
    """
    first, device = prefix.length, next(model.parameters()).device
    ids, mask = padded([prompt[first:] for prompt in prompts], pad, device)
    prefix.put_into(cache, len(prompts))
    mask = torch.nn.functional.pad(mask, (first, 0), value=1)
    positions = positions_of(mask)
    return last_logits(model, ids, mask, positions[:, first:], cache), mask, positions[:, -1:].clone()


def last_logits(model: Any, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """Logits of each row's next token (b x V); `inputs` are the tokens (b x new columns) not yet in the cache."""
    output = model(
        input_ids=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return output.logits[:, -1]


def positions_of(mask: Tensor) -> Tensor:
    """Positions (b x columns) counted from each row's first token that is not padding."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, mask) of prompts padded on the left, both int64 of b x longest prompt."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
