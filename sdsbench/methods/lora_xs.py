"""LoRA-XS (Balazy et al., arXiv 2405.17604, eq. 2): W = W0 + s B R A, only R_rr trains, s = alpha / r.

W0 = U S V^T: A = S_r V_r^T, B = U_r (the singular values may sit on the other side, or be split), R ~ N(0, 1e-5^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdsbench.core.errors import Problem
from sdsbench.core.lazy import torch
from sdsbench.methods.base import Branch, Method, register
from sdsbench.methods.weight_svd import WeightSVDConfig, weight_svd

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear

SINGULAR_VALUE_SHARES = {"down": (0.0, 1.0), "up": (1.0, 0.0), "split": (0.5, 0.5)}  # exponents of S in B and A


@dataclass
class LoRAXSConfig(WeightSVDConfig):
    name: str = "lora_xs"
    singular_values: str = "down"
    r_std: float = 1e-5

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.singular_values not in SINGULAR_VALUE_SHARES:
            yield Problem("method.singular_values", self.singular_values, ", ".join(SINGULAR_VALUE_SHARES))
        if self.r_std < 0:
            yield Problem("method.r_std", self.r_std, "a number from 0")


@register("lora_xs", LoRAXSConfig)
class LoRAXS(Method):
    config: LoRAXSConfig

    def scale(self) -> float:
        return self.config.alpha / self.config.rank

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        rank, (up_share, down_share) = self.config.rank, SINGULAR_VALUE_SHARES[self.config.singular_values]
        u_mr, s_r, v_nr = weight_svd(layer, self.config, generator)
        layer.add_buffer("B", u_mr * s_r**up_share)
        layer.add_buffer("A", (v_nr * s_r**down_share).t().contiguous())
        layer.add_parameter("R", self.config.r_std * torch.randn(rank, rank, generator=generator))

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        # R joins A: the gradient of a down block needs no second product with x
        return [(layer.B, layer.R @ layer.A)]
