"""LoRA-GA (Wang, Yu and Li, arXiv 2407.05000, algorithm 1): LoRA that starts along the gradient.

With U, S, V the SVD of dL/dW summed over a few training rows:

    A0 = c V_[1:r]^T,   B0 = c U_[r+1:2r],   c = m^(1/4) / sqrt gamma,   W = W0 - s B0 A0 + s B A,   s = alpha / sqrt r

W0 is not changed: -s B0 A0 is a constant second branch, so the start equals W0 exactly in every dtype.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.lazy import torch
from sdsbench.core.section import Count, PositiveNumber
from sdsbench.methods.base import Branch, DataContext, Layers, LowRankConfig, Method, SVDIterations, register
from sdsbench.methods.linear_algebra import randomised_svd

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear


class LoRAGAConfig(LowRankConfig):
    name: str = "lora_ga"
    gamma: PositiveNumber = Field(16.0, description="a larger gamma makes the initial factors smaller")
    samples: Count = Field(8, description="training rows whose gradients are summed")
    svd_iterations: SVDIterations = Field(4, description="subspace iterations of the SVD (with 2 r extra directions)")


@register("lora_ga", LoRAGAConfig)
class LoRAGA(Method):
    config: LoRAGAConfig
    title = "LoRA-GA"
    arxiv = "2407.05000"

    def scale(self) -> float:
        return self.config.alpha / math.sqrt(self.config.rank)

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        rank, (m, n) = self.config.rank, layer.shape
        if 2 * rank > min(m, n):
            accepted = f"at most {min(m, n) // 2}: {layer.name} is {m} x {n}, and 2 r singular vectors are used"
            raise ConfigError([Problem("method.rank", rank, accepted)])
        layer.add_parameter("A", torch.zeros(rank, n))
        layer.add_parameter("B", torch.zeros(m, rank))
        layer.add_buffer("A_initial", torch.zeros(rank, n))
        layer.add_buffer("B_initial", torch.zeros(m, rank))

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        rank = self.config.rank
        rows = min(self.config.samples, context.train_rows)
        gradients = context.summed_gradients(layers, rows)
        with torch.no_grad():
            for name, layer in layers.items():
                gradient_mn = gradients.pop(name).to(layer.weight.device)
                u_mk, _, v_nk = randomised_svd(
                    gradient_mn, 2 * rank, context.generator, 2 * rank, self.config.svd_iterations
                )
                level = layer.out_features**0.25 / math.sqrt(self.config.gamma)
                layer.A.copy_(level * v_nk[:, :rank].t())
                layer.B.copy_(level * u_mk[:, rank : 2 * rank])
                layer.A_initial.copy_(layer.A)
                layer.B_initial.copy_(layer.B)
        return {"gradient_rows": float(rows)}

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A), (-layer.B_initial, layer.A_initial)]
