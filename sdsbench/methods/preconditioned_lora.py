"""Preconditioned LoRA (Zhang and Pilanci, arXiv 2402.02347, section 3): gradients rescaled by a Gram matrix.

    gA' = (B^T B + damping I)^-1 gA,   gB' = gB (A A^T + damping I)^-1

The run's optimizer works on gA', gB' (with AdamW: ScaledAdam, with SGD: ScaledGD). To first order W moves by
-eta s^2 (B (B^T B + damping I)^-1 B^T G + G A^T (A A^T + damping I)^-1 A): projectors, like SDS-LoRA's, but with an
inverse at every step. While B = 0, gA = 0 and so is gA'.
"""

from __future__ import annotations

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import PositiveNumber
from sdsbench.methods.base import Layers, LowRankConfig, register
from sdsbench.methods.lora import LoRA


class PreconditionedLoRAConfig(LowRankConfig):
    name: str = "preconditioned_lora"
    damping: PositiveNumber = Field(1e-6, description="added to the eigenvalues of the r x r Gram matrices")


@register("preconditioned_lora", PreconditionedLoRAConfig)
class PreconditionedLoRA(LoRA):
    config: PreconditionedLoRAConfig
    title = "Preconditioned LoRA"
    arxiv = "2402.02347"

    def before_step(self, layers: Layers, step: int) -> None:
        from sdsbench.methods.attach import group_by_shape

        with torch.no_grad():
            for batch in group_by_shape(layers):
                a_Lrn, b_Lmr = torch.stack([layer.A for layer in batch]), torch.stack([layer.B for layer in batch])
                ga_Lrn = torch.stack([layer.A.grad for layer in batch])
                gb_Lmr = torch.stack([layer.B.grad for layer in batch])
                damping_rr = self.config.damping * torch.eye(a_Lrn.shape[1], dtype=a_Lrn.dtype, device=a_Lrn.device)
                scaled_a_Lrn = torch.linalg.solve(b_Lmr.mT @ b_Lmr + damping_rr, ga_Lrn)
                scaled_b_Lmr = torch.linalg.solve(a_Lrn @ a_Lrn.mT + damping_rr, gb_Lmr, left=False)
                for layer, ga_rn, gb_mr in zip(batch, scaled_a_Lrn, scaled_b_Lmr, strict=True):
                    layer.A.grad.copy_(ga_rn)
                    layer.B.grad.copy_(gb_mr)
