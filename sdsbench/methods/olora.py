"""OLoRA (Bueyuekakyuez, arXiv 2406.01775): the factors start as the leading part of a QR decomposition of W0 = Q R.

    W = (W0 - s B0 A0) + s B A,   B0 = the first r columns of Q,   A0 = the first r rows of R,   s = alpha / r

Householder QR without pivoting makes the first r columns of Q from the first r columns of W0 alone, and R = Q^T W0.
So B0 is an orthonormal basis of those columns and A0 = B0^T W0: a QR of m x r and one product replace that of m x n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdsbench.methods.base import LowRankConfig, register
from sdsbench.methods.linear_algebra import thin_qr
from sdsbench.methods.masters import as_master
from sdsbench.methods.weight_split import WeightSplit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class OLoRAConfig(LowRankConfig):
    name: str = "olora"


@register("olora", OLoRAConfig)
class OLoRA(WeightSplit):
    config: OLoRAConfig
    title = "OLoRA"
    arxiv = "2406.01775"

    def initial_factors(self, layer: AdaptedLinear, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weight_mn = as_master(layer.weight.detach())
        basis_mr = thin_qr(weight_mn[:, : self.config.rank])[0]
        return basis_mr, basis_mr.t() @ weight_mn
