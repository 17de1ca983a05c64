"""PiSSA (Meng et al., arXiv 2404.02948, eq. 2-5): the leading singular part of W0 trains, the residual is frozen.

W = (W0 - s B0 A0) + s B A,   A0 = sqrt(S_r / s) V_r^T,   B0 = U_r sqrt(S_r / s),   s = alpha / r, alpha = r
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sdsbench.methods.base import Alpha, register
from sdsbench.methods.weight_split import WeightSplit
from sdsbench.methods.weight_svd import WeightSVDConfig, balanced_factors, weight_svd

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class PiSSAConfig(WeightSVDConfig):
    name: str = "pissa"
    alpha: Alpha = Field(8.0, description="determines s = alpha / r; the authors use the rank")
    svd: Literal["exact", "fast"] = Field("fast", description="fast: subspace iteration, as in the authors' code")


@register("pissa", PiSSAConfig)
class PiSSA(WeightSplit):
    config: PiSSAConfig
    title = "PiSSA"
    arxiv = "2404.02948"

    def initial_factors(self, layer: AdaptedLinear, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return balanced_factors(weight_svd(layer, self.config, generator), self.scale())
