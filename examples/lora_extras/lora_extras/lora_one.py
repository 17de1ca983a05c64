"""LoRA-One (Zhang, Liu and Chen, arXiv 2502.01235, algorithm 1): LoRA that starts with the best rank-r gradient step.

U, S, V: the SVD of -dL/dW, averaged over a few training rows, with singular values divided by the largest:

    B0 = sqrt(gamma) U_r S_r^(1/2),   A0 = sqrt(gamma) S_r^(1/2) V_r^T,   W = W0 + s B A,   s = alpha / sqrt r

The function `prepare` computes this start from training data, once before the first step. Training therefore does not
start at the base weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from sdsbench.core.section import Count, PositiveNumber
from sdsbench.methods.base import Branch, DataContext, Layers, LowRankConfig, Method, register
from sdsbench.methods.linear_algebra import randomised_svd

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear


class LoRAOneConfig(LowRankConfig):
    name: str = "lora_one"
    gamma: PositiveNumber = Field(0.01, description="size of the first step, relative to the gradient's largest value")
    samples: Count = Field(8, description="training rows whose gradients are averaged")


@register("lora_one", LoRAOneConfig)
class LoRAOne(Method):
    config: LoRAOneConfig
    title = "LoRA-One"
    arxiv = "2502.01235"

    def scale(self) -> float:
        return self.config.alpha / math.sqrt(self.config.rank)

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        m, n = layer.shape
        layer.add_parameter("A", torch.zeros(self.config.rank, n))
        layer.add_parameter("B", torch.zeros(m, self.config.rank))

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        rank, rows = self.config.rank, min(self.config.samples, context.train_rows)
        gradients = context.summed_gradients(layers, rows)
        with torch.no_grad():
            for name, layer in layers.items():
                step_mn = -gradients.pop(name).to(layer.weight.device) / rows
                u_mr, s_r, v_nr = randomised_svd(step_mn, rank, context.generator, rank, 4)
                root_r = (self.config.gamma * s_r / s_r[0]).sqrt()
                layer.B.copy_(u_mr * root_r)
                layer.A.copy_((v_nr * root_r).t())
        return {"gradient_rows": float(rows)}

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A)]
