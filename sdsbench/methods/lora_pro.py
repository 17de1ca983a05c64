"""LoRA-Pro (Wang et al., arXiv 2407.18242): gradients of A and B changed so that the weight moves as if it were dense.

With gA = dL/dA, gB = dL/dB, P_B = B (B^T B)^-1 B^T and any X_rr (theorem 2.1 and 2.2 there):

    gA' = (1/s^2) (B^T B)^-1 gA + X A
    gB' = (1/s^2) (I - P_B) gB (A A^T)^-1 - B X
    s B gA' + s gB' A = G - (I - P_B) G (I - P_A)          whatever X is
    (B^T B) X + X (A A^T) = -(1/s^2) (B^T B)^-1 gA A^T     the X that keeps gA', gB' closest to gA, gB

While B = 0: gA' = 0, gB' = (1/s^2) gB (A A^T)^-1.

mode `efficient`: the run's optimizer works on gA', gB'. mode `full`: Adam moments of the dense equivalent gradient
(X = 0), whose direction d is projected back (s B^T d and s d A^T in place of gA and gB) and applied by a plain step
without weight decay; the state is 2 m n numbers per layer.

The authors' code (DeepSpeed's stage_1_and_2.py in their repository) damps by an absolute 1e-8, counts its first step as
the second and rounds the factors of the squares to bf16: damping_form, first_count and square_dtype.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import Count, PositiveNumber, Share, only_where
from sdsbench.methods.base import Layers, LowRankConfig, register
from sdsbench.methods.factor_stacks import factors_and_gradients, put_gradients
from sdsbench.methods.linear_algebra import damped, inverse, positive_eigh, sylvester
from sdsbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class LoRAProConfig(LowRankConfig):
    name: str = "lora_pro"
    mode: Literal["efficient", "full"] = Field("efficient", description="full: dense Adam moments and a plain step")
    scaling: Literal["standard", "rank_stabilized"] = Field(
        "rank_stabilized", description="s = alpha / r, or s = alpha / sqrt r"
    )
    damping: PositiveNumber = Field(1e-6, description="added to the eigenvalues in the r x r inverses")
    damping_form: Literal["relative", "absolute"] = Field(
        "relative", description="add damping times the mean eigenvalue, or damping itself (the authors: 1e-8)"
    )
    betas: Annotated[list[Share], only_where(mode="full")] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay rates of Adam's moments, in mode full"
    )
    epsilon: Annotated[PositiveNumber, only_where(mode="full")] = Field(
        1e-8, description="epsilon of Adam, in mode full"
    )
    moment_dtype: Annotated[Literal["float32", "bfloat16"], only_where(mode="full")] = Field(
        "float32", description="number format of the dense moments, in mode full"
    )
    first_count: Annotated[Count, only_where(mode="full")] = Field(
        1, description="number of the first step in bias corrections, in mode full (the authors' code: 2)"
    )
    square_dtype: Annotated[Literal["float32", "bfloat16"], only_where(mode="full")] = Field(
        "float32",
        description="number format in which gradients are squared for the second moment from the second step on, in "
        "mode full",
    )


def adjusted_gradients(
    a_Lrn: Tensor,
    b_Lmr: Tensor,
    ga_Lrn: Tensor,
    gb_Lmr: Tensor,
    scale: float,
    damping: float,
    relative: bool = True,
    closest: bool = True,
) -> tuple[Tensor, Tensor]:
    """(gA', gB') for a batch of layers; with `closest` the X of the Sylvester equation, else X = 0.

    Relative damping is also applied in the Sylvester equation; absolute damping only in the inverses, as in the
    authors' code.
    """
    plain_left, plain_right = positive_eigh(b_Lmr.mT @ b_Lmr), positive_eigh(a_Lrn @ a_Lrn.mT)
    left, right = damped(plain_left, damping, relative), damped(plain_right, damping, relative)
    inverse_left_Lrr = inverse(left)
    adjusted_a_Lrn = inverse_left_Lrr @ ga_Lrn / scale**2
    projected_Lmr = gb_Lmr - b_Lmr @ (inverse_left_Lrr @ (b_Lmr.mT @ gb_Lmr))
    adjusted_b_Lmr = projected_Lmr @ inverse(right) / scale**2
    if not closest:
        return adjusted_a_Lrn, adjusted_b_Lmr
    pair = (left, right) if relative else (plain_left, plain_right)
    x_Lrr = sylvester(*pair, -adjusted_a_Lrn @ a_Lrn.mT)
    return adjusted_a_Lrn + x_Lrr @ a_Lrn, adjusted_b_Lmr - b_Lmr @ x_Lrr


@register("lora_pro", LoRAProConfig)
class LoRAPro(LoRA):
    config: LoRAProConfig
    title = "LoRA-Pro"
    arxiv = "2407.18242"
    relative_time = 1.2  # assumed: no published figure
    state_advice = (
        "use method.mode=efficient (no such state), method.moment_dtype=bfloat16 (half of it), or fewer method.targets"
    )

    def __init__(self, config: LoRAProConfig) -> None:
        super().__init__(config)
        self.update_rule = "sgd" if config.mode == "full" else "configured"

    def scale(self) -> float:
        root = self.config.scaling == "rank_stabilized"
        return self.config.alpha / (math.sqrt(self.config.rank) if root else self.config.rank)

    def state_bytes(self, m: int, n: int) -> int:
        if self.config.mode == "efficient":
            return 0
        return 2 * m * n * (4 if self.config.moment_dtype == "float32" else 2)

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        super().create(layer, generator)
        if self.config.mode == "full":
            dtype = getattr(torch, self.config.moment_dtype)
            layer.add_training_state("moment1", torch.zeros(layer.shape, dtype=dtype))
            layer.add_training_state("moment2", torch.zeros(layer.shape, dtype=dtype))

    def before_step(self, layers: Layers, step: int, lr: float) -> None:
        from sdsbench.methods.attach import group_by_shape

        with torch.no_grad():
            for batch in group_by_shape(layers):
                if self.config.mode == "full":
                    self._replace_by_dense_direction(batch, step)
                self._adjust(batch)

    def _adjust(self, batch: list[AdaptedLinear]) -> None:
        ga_Lrn, gb_Lmr = adjusted_gradients(*factors_and_gradients(batch), *self._settings())
        put_gradients(batch, A=ga_Lrn, B=gb_Lmr)

    def _settings(self) -> tuple[float, float, bool]:
        """(s, damping, whether it is relative)"""
        return self.scale(), self.config.damping, self.config.damping_form == "relative"

    def _replace_by_dense_direction(self, batch: list[AdaptedLinear], step: int) -> None:
        """gA <- s B^T d, gB <- s d A^T, with d Adam's direction for the equivalent gradient; step counts from 1."""
        scale, (beta1, beta2) = self.scale(), self.config.betas
        count = step - 1 + self.config.first_count
        square_dtype = torch.float32 if step == 1 else getattr(torch, self.config.square_dtype)
        adjusted = adjusted_gradients(*factors_and_gradients(batch), *self._settings(), closest=False)
        for layer, ga_rn, gb_mr in zip(batch, *adjusted, strict=True):
            equivalent_mn = scale * (layer.B @ ga_rn + gb_mr @ layer.A)
            moment1_mn = layer.moment1.float().lerp(equivalent_mn, 1 - beta1)
            moment2_mn = layer.moment2.float().lerp(equivalent_mn.to(square_dtype).float().square(), 1 - beta2)
            layer.moment1.copy_(moment1_mn)
            layer.moment2.copy_(moment2_mn)
            root_mn = moment2_mn.div_(1 - beta2**count).sqrt_().add_(self.config.epsilon)
            direction_mn = moment1_mn.div_(1 - beta1**count).div_(root_mn)
            layer.A.grad.copy_(scale * layer.B.t() @ direction_mn)
            layer.B.grad.copy_(scale * direction_mn @ layer.A.t())
