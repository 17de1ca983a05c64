"""Dropout masks as a function of (seed, layer, row of the optimizer step), however the step is cut into passes.

The rows that a layer sees in all passes of a step, in order, are the rows of one mask. It is drawn `ROWS` rows at a
time, each block from a seed of its own, so that a pass draws the blocks that it touches and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdsbench.methods.global_random import seed_of

ROWS = 256


@dataclass
class DropoutMasks:
    """Where in the step the current pass lies. Outside of training steps every pass is the first."""

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
        """The next pass has so many examples, of so many tokens in all (filling left out)."""
        self.examples_before += self.examples
        self.tokens_before += self.tokens
        self.examples, self.tokens, self.places = examples, tokens, 0

    def next_place(self) -> str:
        """A name for the next place of a pass that has none; every pass comes by the same places in order."""
        self.places += 1
        return f"place {self.places}"

    def of_layer(self, name: str, rows: int) -> tuple[int, int]:
        """(seed, first row) of the mask of a layer that sees `rows` rows in a pass: one a token, or one an example."""
        return seed_of(self.step_seed, name), self.tokens_before if rows >= self.tokens else self.examples_before


def keep_mask(like_tn: Tensor, keep: float, seed: int, first_row: int) -> Tensor:
    """Ones (with probability `keep`) and zeros like the tensor: the rows from `first_row` on of a step's mask."""
    device = "cpu" if like_tn.is_meta else like_tn.device  # no generator exists on the meta device
    generator, mask_tn = torch.Generator(device), torch.empty_like(like_tn)
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
