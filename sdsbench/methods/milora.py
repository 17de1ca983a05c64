"""MiLoRA (Wang et al., arXiv 2406.09044, section 3): the minor singular part of W0 trains, the rest is frozen.

    W = (W0 - s B0 A0) + s B A,   A0 = sqrt(S_r / s) V_r^T,   B0 = U_r sqrt(S_r / s),   s = alpha / r, alpha = r

with the r smallest singular values of W0 and their vectors: PiSSA from the other end of the spectrum. A subspace
iteration finds the large ones only, so the SVD is a full one (read from the cache the second time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sdsbench.methods.base import Alpha, LowRankConfig, register
from sdsbench.methods.weight_split import WeightSplit
from sdsbench.methods.weight_svd import balanced_factors, minor_weight_svd

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class MiLoRAConfig(LowRankConfig):
    name: str = "milora"
    alpha: Alpha = Field(8.0, description="determines s = alpha / r; the authors use the rank")


@register("milora", MiLoRAConfig)
class MiLoRA(WeightSplit):
    config: MiLoRAConfig
    title = "MiLoRA"
    arxiv = "2406.09044"

    def initial_factors(self, layer: AdaptedLinear, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return balanced_factors(minor_weight_svd(layer, self.config.rank), self.scale())
