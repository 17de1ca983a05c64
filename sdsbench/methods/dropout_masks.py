"""Dropout masks that depend only on (seed, layer, row of the optimizer step), not on how the step is split into passes.

The rows that a layer sees in all passes of a step, in order, are the rows of one mask. It is drawn `ROWS` rows at a
time, each block from a separate seed, so that a pass draws only the blocks that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdsbench.methods.global_random import seed_of

ROWS = 256


@dataclass
class DropoutMasks:
    """Position of the current pass within its step. Outside of training steps every pass counts as the first."""

    step_seed: int = 0
    examples_before: int = 0
    tokens_before: int = 0
    examples: int = 0
    tokens: int = 0
    places: int = 0  # in this pass so far

    def begin_step(self, seed: int) -> None:
        self.step_seed = seed
        self.examples_before = self.tokens_before = self.examples = self.tokens = self.places = 0

    def begin_pass(self, examples: int, tokens: int) -> None:
        """Start the next pass, with this many examples and tokens (padding not counted)."""
        self.examples_before += self.examples
        self.tokens_before += self.tokens
        self.examples, self.tokens, self.places = examples, tokens, 0

    def next_place(self) -> str:
        """A name for the next dropout call of a module without a name; every pass makes the same calls in the same
        order."""
        self.places += 1
        return f"place {self.places}"

    def of_layer(self, name: str, rows: int) -> tuple[int, int]:
        """(seed, first row) of the mask of a layer that gets `rows` input rows in this pass: one per token or one per
        example."""
        return seed_of(self.step_seed, name), self.tokens_before if rows >= self.tokens else self.examples_before


def keep_mask(like_tn: Tensor, keep: float, seed: int, first_row: int) -> Tensor:
    """Mask_tn shaped like the tensor: ones with probability `keep`, else zeros; rows `first_row` onwards of the step's
    mask."""
    device = "cpu" if like_tn.is_meta else like_tn.device  # no generator exists on the meta device
    # Row by row in memory whatever the tensor's own layout: random numbers fill a tensor in the order of its memory.
    generator, mask_tn = torch.Generator(device), torch.empty_like(like_tn, memory_format=torch.contiguous_format)
    end = first_row + len(like_tn)
    for block in range(first_row // ROWS, (end - 1) // ROWS + 1):
        generator.manual_seed((seed + block) % 2**32)
        start, stop = max(first_row, block * ROWS), min(end, (block + 1) * ROWS)
        rows = mask_tn[start - first_row : stop - first_row]
        if stop - start == ROWS:
            rows.bernoulli_(keep, generator=generator)
        else:
            whole = like_tn.new_empty(ROWS, *like_tn.shape[1:]).bernoulli_(keep, generator=generator)
            rows.copy_(whole[start - block * ROWS : stop - block * ROWS])
    return mask_tn
