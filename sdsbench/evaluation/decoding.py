"""A batch of rows that are answered token by token, in which a row that has ended makes room for another prompt.

All rows end at the same column of the cache; a row's own tokens are the last ones before it, and what lies to the left
is masked. So a new prompt of w tokens, computed by itself, takes the last w columns of a row that has ended. When the
columns are used up, those on the left that no open row needs are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from sdsbench.core.console import print_now
from sdsbench.evaluation.finite import finite
from sdsbench.evaluation.key_value_cache import ReservedLayer, reserved_cache
from sdsbench.evaluation.static_step import StaticStep, Steps, why_plain

SLACK = 64  # columns beyond the longest row, so that dropping columns is rare


class Decoding:
    """The rows of a batch; `capacity`: the most tokens of a prompt with its answer. `pad`: any token."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], capacity: int, pad: int, steps: Steps = "plain"
    ) -> None:
        self.model, self.pad, self.device = model, pad, next(model.parameters()).device
        self.capacity = capacity + SLACK
        self.cache = reserved_cache(model.config, self.capacity)
        self.tokens, mask, self.positions = self._read(prompts, self.cache)
        """The newest token of each row (b) and its position (b x 1)."""
        self.columns = mask.shape[1]  # in use
        self.mask = torch.nn.functional.pad(mask, (0, self.capacity - self.columns))
        """The columns that belong to each row (b x capacity)."""
        self.replaceable = all(isinstance(layer, ReservedLayer) for layer in self.cache.layers)
        """Whether rows can be replaced: layers with a sliding window keep columns of their own."""
        self.static: StaticStep | None = None
        if steps != "plain":
            self._begin_static_steps(captured=steps == "captured")

    @property
    def shrinks(self) -> bool:
        """Whether rows that have ended may go: a static step is one of a fixed number of rows."""
        return self.static is None

    def step(self, open_rows: Sequence[int]) -> None:
        """The next token of every row; what it is in rows that have ended does not matter."""
        if self.columns == self.capacity:
            self._drop_columns(open_rows)
        self.columns += 1
        if self.static is not None:
            try:
                return self.static(self.columns)
            except Exception as error:  # of the model, which may do what no graph holds, or of the capture
                self._settle(self.columns - 1)
                self._decode_plainly(said(error))
        logits = self._plain_logits()
        self.positions = self.positions + 1
        self.tokens = logits.argmax(dim=-1)

    def replace(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Put prompts, none longer than an open row, into rows that have ended; their first tokens are made."""
        self._settle(self.columns)
        width = max(map(len, prompts))
        cache, at = reserved_cache(self.model.config, width), torch.tensor(rows, device=self.device)
        self.tokens[at], mask, self.positions[at] = self._read(prompts, cache)
        self.mask[at] = torch.nn.functional.pad(mask, (self.columns - width, self.capacity - self.columns))
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
        tokens = finite(last_logits(self.model, ids, mask, positions, cache)).argmax(dim=-1)
        return tokens, mask, positions[:, -1:].clone()

    def _plain_logits(self) -> Tensor:
        """Logits (b x V) after the newest tokens, which get the last of the columns in use."""
        self.mask[:, self.columns - 1] = 1
        seen, positions = self.mask[:, : self.columns], self.positions + 1
        return last_logits(self.model, self.tokens[:, None], seen, positions, self.cache)

    def _drop_columns(self, open_rows: Sequence[int]) -> None:
        """Forget columns on the left, as many as all open rows can spare."""
        self._settle(self.columns)
        needed = int(self.mask[list(open_rows)].sum(dim=1).max())
        self.mask[:, :needed] = self.mask[:, self.columns - needed : self.columns].clone()
        self.mask[:, needed:] = 0
        self.columns = needed
        for layer in self.cache.layers:
            layer.keep_last(needed)

    def _settle(self, columns: int) -> None:
        """Static steps write into the cache's memory; the cache itself is told here how many columns it has."""
        if self.static is not None:
            for layer in self.cache.layers:
                layer.use(columns)

    def _begin_static_steps(self, captured: bool) -> None:
        """Unless their logits are not those of a plain step; then it is said why."""
        reason = why_plain(self.model, self.cache)
        if reason is None:
            logits = partial(last_logits, self.model)
            self.static = StaticStep(
                logits, self.model.dtype, self.tokens, self.positions, self.mask, self.cache, captured
            )
            reason = self._difference(self.static)
        if reason is not None:
            self._decode_plainly(reason)

    def _difference(self, static: StaticStep) -> str | None:
        """How the logits of a static step differ from those of a plain one; None where they do not."""
        self.columns += 1
        try:
            expected = self._plain_logits()
            different = off_by(static.logits(self.columns), expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture that takes no such mask or cache raises whatever it likes
            return said(error)
        finally:
            self.columns -= 1
            self.mask[:, self.columns] = 0
            self._settle(self.columns)
        if not different <= accepted(self.model.dtype):
            return f"logits of a static step are off by {different:.2g} standard deviations of a logit"
        return None

    def _decode_plainly(self, reason: str) -> None:
        self.static = None
        _say_once(f"answers are decoded kernel by kernel (slower, the same answers): {reason}")


@lru_cache
def _say_once(line: str) -> None:
    print_now(line)


def said(error: Exception) -> str:
    """An error of a library in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def off_by(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits (b x V), in standard deviations of a row's logits."""
    found, expected = found.float(), expected.float()
    return float(((found - expected).abs().amax(dim=-1) / expected.std(dim=-1)).max())


def accepted(dtype: torch.dtype) -> float:
    """How far logits that were computed in another order may be off, in the sense of `off_by`."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.3


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
