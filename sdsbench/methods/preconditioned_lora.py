"""Preconditioned LoRA (Zhang and Pilanci, arXiv 2402.02347, section 3): gradients rescaled by a Gram matrix.

    gA' = (B^T B + damping I)^-1 gA,   gB' = gB (A A^T + damping I)^-1

The run's optimizer works on gA', gB' (with AdamW: ScaledAdam, with SGD: ScaledGD). To first order W moves by
-eta s^2 (B (B^T B + damping I)^-1 B^T G + G A^T (A A^T + damping I)^-1 A): projectors, like SDS-LoRA's, but with an
inverse at every step. While B = 0, gA = 0 and so is gA'.

`form=authors` is the ScaledAdam of the method's own authors (custom_optimizer.py: AdamWr). A moves first, and the Gram
matrix that divides gB is that of the new A; Adam's moments are the method's own, by default without bias correction:

    A <- A - eta M_A / (sqrt(V_A) + epsilon),   then A <- (1 - eta decay) A,   and B likewise
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import FromZero, PositiveNumber, Share, only_where
from sdsbench.methods.base import Layers, LowRankConfig, register
from sdsbench.methods.factor_stacks import factors_and_gradients, put, put_gradients, stacked
from sdsbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear

_AUTHORS = only_where(form="authors")


class PreconditionedLoRAConfig(LowRankConfig):
    name: str = "preconditioned_lora"
    damping: PositiveNumber = Field(1e-6, description="added to the eigenvalues of the r x r Gram matrices")
    form: Literal["joint", "authors"] = Field(
        "joint",
        description="joint: both Gram matrices from before the step, and the run's optimizer; authors: as in their "
        "code, where A is updated before B by an Adam of the method",
    )
    betas: Annotated[list[Share], _AUTHORS] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay rates of the first and the second moment"
    )
    epsilon: Annotated[PositiveNumber, _AUTHORS] = Field(1e-8, description="added to the root of the second moment")
    bias_correction: Annotated[bool, _AUTHORS] = Field(
        False, description="multiply the learning rate by sqrt(1 - beta2^t) / (1 - beta1^t)"
    )
    weight_decay: Annotated[FromZero, _AUTHORS] = Field(
        0.0,
        description="after its update a factor shrinks by the learning rate times this; train.weight_decay applies "
        "only to a head",
    )


@register("preconditioned_lora", PreconditionedLoRAConfig)
class PreconditionedLoRA(LoRA):
    config: PreconditionedLoRAConfig
    title = "Preconditioned LoRA"
    arxiv = "2402.02347"

    def __init__(self, config: PreconditionedLoRAConfig) -> None:
        super().__init__(config)
        self.update_rule = "sgd" if config.form == "authors" else "configured"

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        super().create(layer, generator)
        if self.config.form == "authors":
            for name in "AB":
                zeros = torch.zeros_like(getattr(layer, name).detach())
                layer.add_training_state(f"{name}_momentum", zeros)
                layer.add_training_state(f"{name}_square", zeros.clone())

    def before_step(self, layers: Layers, step: int, lr: float) -> None:
        from sdsbench.methods.attach import group_by_shape

        with torch.no_grad():
            for batch in group_by_shape(layers):
                a_Lrn, b_Lmr, ga_Lrn, gb_Lmr = factors_and_gradients(batch)
                ga_Lrn = self._divided(b_Lmr.mT @ b_Lmr, ga_Lrn)
                if self.config.form == "authors":
                    ga_Lrn = self._decayed(a_Lrn, self._adam(batch, "A", ga_Lrn, step), lr)
                    a_Lrn = a_Lrn - lr * ga_Lrn
                gb_Lmr = self._divided(a_Lrn @ a_Lrn.mT, gb_Lmr.mT).mT
                if self.config.form == "authors":
                    gb_Lmr = self._decayed(b_Lmr, self._adam(batch, "B", gb_Lmr, step), lr)
                put_gradients(batch, A=ga_Lrn, B=gb_Lmr)

    def _divided(self, gram_Lrr: Tensor, gradient_Lrn: Tensor) -> Tensor:
        """(gram + damping I)^-1 gradient"""
        damping_rr = self.config.damping * torch.eye(gram_Lrr.shape[1], dtype=gram_Lrr.dtype, device=gram_Lrr.device)
        return torch.linalg.solve(gram_Lrr + damping_rr, gradient_Lrn)

    def _adam(self, batch: list[AdaptedLinear], name: str, gradient_L: Tensor, step: int) -> Tensor:
        """Adam's direction for one factor of a batch of layers; updates the stored moments."""
        beta1, beta2 = self.config.betas
        momentum_L = stacked(batch, f"{name}_momentum").lerp(gradient_L, 1 - beta1)
        square_L = stacked(batch, f"{name}_square").lerp(gradient_L.square(), 1 - beta2)
        put(batch, **{f"{name}_momentum": momentum_L, f"{name}_square": square_L})
        direction_L = momentum_L / square_L.sqrt().add_(self.config.epsilon)
        if self.config.bias_correction:
            direction_L *= math.sqrt(1 - beta2**step) / (1 - beta1**step)
        return direction_L

    def _decayed(self, factor_L: Tensor, direction_L: Tensor, lr: float) -> Tensor:
        """The direction d' with x - lr d' = (1 - lr decay) (x - lr d): a plain step along d' includes the weight
        decay."""
        return direction_L + self.config.weight_decay * (factor_L - lr * direction_L)
