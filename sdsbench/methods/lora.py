"""LoRA (Hu et al., arXiv 2106.09685, eq. 3): W = W0 + s B A, s = alpha / r.

A_rn ~ U(-1/sqrt n, 1/sqrt n), B_mr = 0. Gradients: dL/dA = s B^T G, dL/dB = s G A^T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdsbench.methods.base import Branch, LowRankConfig, Method, register
from sdsbench.methods.initial import add_lora_factors

if TYPE_CHECKING:
    import torch

    from sdsbench.methods.layer import AdaptedLinear


class LoRAConfig(LowRankConfig):
    name: str = "lora"


@register("lora", LoRAConfig)
class LoRA(Method):
    config: LowRankConfig
    title = "LoRA"
    arxiv = "2106.09685"

    def scale(self) -> float:
        return self.config.alpha / self.config.rank

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        add_lora_factors(layer, self.config.rank, generator)

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A)]
