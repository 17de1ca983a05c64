"""Initial values shared by methods, drawn from an explicit generator on the CPU (equal on every device)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdsbench.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


def kaiming_uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = sqrt 5, as LoRA's authors use it: U(-1/sqrt n, 1/sqrt n) for n columns."""
    bound = 1 / math.sqrt(columns)
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def add_lora_factors(layer: AdaptedLinear, rank: int, generator: torch.Generator) -> None:
    """A_rn Kaiming-uniform, B_mr = 0: the update starts at zero."""
    m, n = layer.shape
    layer.add_parameter("A", kaiming_uniform(rank, n, generator))
    layer.add_parameter("B", torch.zeros(m, rank))
