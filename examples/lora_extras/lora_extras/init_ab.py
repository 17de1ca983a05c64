"""Init[AB] (Li et al., arXiv 2505.23194): LoRA whose two factors both start at random values.

    A_rn ~ N(0, (gain / sqrt n)^2),   B_mr ~ N(0, (gain / sqrt m)^2),   W = W0 - s B0 A0 + s B A,   s = alpha / r

Training starts at the base model: -s B0 A0 is a constant second branch, so that W0 is not rounded in any dtype.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from sdsbench.core.section import PositiveNumber
from sdsbench.methods.base import Branch, LowRankConfig, register
from sdsbench.methods.lora import LoRA

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear


class InitABConfig(LowRankConfig):
    name: str = "init_ab"
    gain: PositiveNumber = Field(1.0, description="of both factors' standard deviations")


@register("init_ab", InitABConfig)
class InitAB(LoRA):
    config: InitABConfig
    title = "Init[AB]"
    arxiv = "2505.23194"

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        rank, (m, n) = self.config.rank, layer.shape
        a_rn = torch.randn(rank, n, generator=generator) * self.config.gain / math.sqrt(n)
        b_mr = torch.randn(m, rank, generator=generator) * self.config.gain / math.sqrt(m)
        layer.add_parameter("A", a_rn)
        layer.add_parameter("B", b_mr)
        layer.add_buffer("A_initial", a_rn.clone())
        layer.add_buffer("B_initial", b_mr.clone())

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A), (-layer.B_initial, layer.A_initial)]
