"""LoRA-XS (Balazy et al., arXiv 2405.17604, eq. 2): W = W0 + s B R A, only R_rr trains, s = alpha / r.

W0 = U S V^T: A = S_r V_r^T, B = U_r (the singular values may sit on the other side, or be split), R ~ N(0, 1e-5^2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import FromZero
from sdsbench.methods.base import Alpha, Branch, Method, register
from sdsbench.methods.weight_svd import WeightSVDConfig, weight_svd

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear

SINGULAR_VALUE_SHARES = {"down": (0.0, 1.0), "up": (1.0, 0.0), "split": (0.5, 0.5)}  # exponents of S in B and A


class LoRAXSConfig(WeightSVDConfig):
    name: str = "lora_xs"
    alpha: Alpha = Field(8.0, description="determines s = alpha / r; the authors use the rank for math")
    singular_values: Literal["down", "up", "split"] = Field(
        "down", description="put the singular values of W0 into A, into B, or their square roots into both"
    )
    r_std: FromZero = Field(1e-5, description="standard deviation of the initial R")


@register("lora_xs", LoRAXSConfig)
class LoRAXS(Method):
    config: LoRAXSConfig
    title = "LoRA-XS"
    arxiv = "2405.17604"
    trains_between_fixed_factors = True

    def scale(self) -> float:
        return self.config.alpha / self.config.rank

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        rank, (up_share, down_share) = self.config.rank, SINGULAR_VALUE_SHARES[self.config.singular_values]
        u_mr, s_r, v_nr = weight_svd(layer, self.config, generator)
        layer.add_buffer("B", u_mr * s_r**up_share)
        layer.add_buffer("A", (v_nr * s_r**down_share).t().contiguous())
        layer.add_parameter("R", self.config.r_std * torch.randn(rank, rank, generator=generator))

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        # multiply R into A, not B: then the gradient of R needs no second product with x
        return [(layer.B, layer.R @ layer.A)]
