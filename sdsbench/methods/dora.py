"""DoRA (Liu et al., arXiv 2402.09353, eq. 5 and section 4.3): direction and magnitude are trained separately.

    W = magnitude_m * (W0 + s B A) / rownorm(W0 + s B A),   s = alpha / r

The norm runs over the input dimension and is a constant for the backward pass. magnitude starts at rownorm(W0), A and
B as in LoRA. The bias is not rescaled. Dropout, if any, is on the input of B A only, or, with `drop_base`, as in the
authors' code (tuners/dora.py) and in peft: with c = magnitude / rownorm and d = dropout(x),

    y = x W0^T + (c - 1) d W0^T + c s d A^T B^T + bias
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import only_where, other_than
from sdsbench.methods.base import LowRankConfig, register
from sdsbench.methods.initial import add_lora_factors
from sdsbench.methods.lora import LoRA
from sdsbench.methods.masters import as_master

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class DoRAConfig(LowRankConfig):
    name: str = "dora"
    drop_base: Annotated[bool, only_where(dropout=other_than(0.0))] = Field(
        False, description="dropout also on the input of the rescaled base product (the authors' code, peft)"
    )


@register("dora", DoRAConfig)
class DoRA(LoRA):
    config: DoRAConfig
    title = "DoRA"
    arxiv = "2402.09353"
    peft_options: ClassVar[Mapping[str, Any]] = {"use_dora": True}
    exact_gradient = False  # the row norms count as constants (the paper's section 4.3)
    relative_time = 1.21  # published for another benchmark

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        add_lora_factors(layer, self.config.rank, generator)
        squares_m = as_master(layer.weight.detach()).square().sum(1)
        layer.add_training_state("base_squares", squares_m)
        layer.add_parameter("magnitude", squares_m.sqrt())

    def forward(self, layer: AdaptedLinear, x_tn: Tensor) -> Tensor:
        rows = (layer.magnitude, self.row_norm(layer))
        return layer.low_rank_forward(x_tn, self.branches(layer), self.scale(), rows, self.config.drop_base)

    def row_norm(self, layer: AdaptedLinear) -> Tensor:
        """rownorm(W0 + s B A) without an m x n result: |w|^2 + 2 s b (A w) + s^2 b (A A^T) b for rows w, b.

        A w is a product in the base's dtype, like the forward product. The result is above 0 even for a row of zeros.
        """
        with torch.no_grad():
            scale, a_rn, b_mr = self.scale(), layer.A.detach(), layer.B.detach()
            projected_mr = as_master(layer.weight @ a_rn.t().to(layer.weight.dtype))
            inner_mr = torch.addmm(projected_mr, b_mr, a_rn @ a_rn.t(), beta=2 * scale, alpha=scale * scale)
            squares_m = inner_mr.mul_(b_mr).sum(1).add_(layer.base_squares)
            return squares_m.clamp_min_(torch.finfo(torch.float32).tiny).sqrt_()

    def peft_tensors(self, layer: AdaptedLinear) -> dict[str, Tensor]:
        return super().peft_tensors(layer) | {"lora_magnitude_vector": layer.magnitude.detach()}

    def delta(self, layer: AdaptedLinear) -> Tensor:
        return self.merged_weight(layer) - as_master(layer.weight.detach())

    def merged_weight(self, layer: AdaptedLinear) -> Tensor:
        direction_mn = as_master(layer.weight.detach()) + super().delta(layer)
        norm_m = direction_mn.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        return direction_mn * (layer.magnitude / norm_m).unsqueeze(1)
