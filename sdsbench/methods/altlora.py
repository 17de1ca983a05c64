"""AltLoRA (Yu et al., arXiv 2505.12455, section 3): one factor moves at a time, nearest to the full gradient.

While the other factor rests, one step of A or of B alone comes closest to G = dL/dW (in the Frobenius norm):

    gA' = argmin_X |s B X - G| = (1/s^2) (B^T B)^-1 gA        gB' = argmin_X |s X A - G| = (1/s^2) gB (A A^T)^-1

so W moves along P_B G when A moves and along G P_A when B moves. Since the other factor has changed meanwhile, momentum
is projected onto its current value by least squares (B_then is B at A's previous step; k counts A's steps):

    M_A <- beta1 (B^T B)^-1 B^T B_then M_A + (1 - beta1) gA'         A <- A - eta M_A / (1 - beta1^k)

and likewise for B. `second_moment` is the authors' AltLoRA+: the step is divided, entry by entry, by sqrt(V_A / (1 -
beta2^k)) + epsilon, where V_A <- beta2 V_A + (1 - beta2) gA'^2. Steps are plain (no second optimizer, no weight decay).

Left open by the paper, and chosen here: B has the first turn, since gA = 0 while B = 0; `damping` is added to the
eigenvalues of B^T B and A A^T.

`moves=both` is the AltLoRA that SDS-LoRA's author compares with (trainer.py: altlora_step): every step moves A, then B
at the new A. The projected momentum is used for the step only; the stored momentum is beta1 M_A + (1 - beta1) gA'. The
factor 1/s^2 is left out; the second moment would cancel it anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import Count, PositiveNumber, Share, only_where
from sdsbench.methods.base import Layers, LowRankConfig, register
from sdsbench.methods.factor_stacks import put, put_gradients, stacked, stacked_gradients
from sdsbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class AltLoRAConfig(LowRankConfig):
    name: str = "altlora"
    second_moment: bool = Field(False, description="AltLoRA+: the step is divided by the root of its second moment")
    moves: Literal["turns", "both"] = Field(
        "turns",
        description="factors that a step updates: one, in turns; A and then B at the new A (SDS-LoRA's author's code)",
    )
    steps_per_turn: Annotated[Count, only_where(moves="turns")] = Field(
        1, description="optimizer steps for one factor before the other is updated"
    )
    damping: PositiveNumber = Field(1e-6, description="added to the eigenvalues of the r x r Gram matrices")
    betas: list[Share] = Field(
        [0.9, 0.999],
        min_length=2,
        max_length=2,
        description="decay rates of the first and the second moment",
    )
    epsilon: Annotated[PositiveNumber, only_where(second_moment=True)] = Field(
        1e-8, description="added to the root of the second moment"
    )


@register("altlora", AltLoRAConfig)
class AltLoRA(LoRA):
    config: AltLoRAConfig
    title = "AltLoRA"
    arxiv = "2505.12455"
    update_rule = "sgd"

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        super().create(layer, generator)
        for name in "AB":
            zeros = torch.zeros_like(getattr(layer, name).detach())
            layer.add_training_state(f"{name}_momentum", zeros)
            layer.add_training_state(f"{name}_then", zeros.clone())
            if self.config.second_moment:
                layer.add_training_state(f"{name}_square", zeros.clone())

    def turn(self, step: int) -> tuple[str, str, int]:
        """(factor that moves at optimizer step `step`, factor that is fixed, number of steps of the moving factor
        including this one)."""
        turns, within = divmod(step - 1, self.config.steps_per_turn)
        moving, resting = "AB" if turns % 2 else "BA"
        return moving, resting, turns // 2 * self.config.steps_per_turn + within + 1

    def before_step(self, layers: Layers, step: int, lr: float) -> None:
        from sdsbench.methods.attach import group_by_shape

        with torch.no_grad():
            for batch in group_by_shape(layers):
                if self.config.moves == "both":
                    a_Lrn, b_Lmr = stacked(batch, "A"), stacked(batch, "B")
                    towards_a_Lrn = self._direction(batch, "A", b_Lmr, step)
                    towards_b_Lrm = self._direction(batch, "B", (a_Lrn - lr * towards_a_Lrn).mT, step)
                    put_gradients(batch, A=towards_a_Lrn, B=towards_b_Lrm.mT)
                else:
                    self._take_turn(batch, step)

    def _take_turn(self, batch: list[AdaptedLinear], step: int) -> None:
        moving, resting, count = self.turn(step)
        held_L = stacked(batch, resting)
        direction_L = self._direction(batch, moving, held_L if moving == "A" else held_L.mT, count)
        put_gradients(batch, **{moving: direction_L if moving == "A" else direction_L.mT})
        for layer in batch:
            getattr(layer, resting).grad.zero_()

    def _direction(self, batch: list[AdaptedLinear], moving: str, b_Lmr: Tensor, count: int) -> Tensor:
        """Compute the moving factor's step for a batch of layers and update their stored momentum.

        The formulas are those for A. For B all matrices are transposed: A^T replaces B, and shape r x m replaces r x n.
        """

        def turned(stack_L: Tensor) -> Tensor:
            return stack_L.mT if moving == "B" else stack_L

        beta1, beta2 = self.config.betas
        both, resting = self.config.moves == "both", "B" if moving == "A" else "A"
        then_Lmr, before_Lrn = turned(stacked(batch, f"{resting}_then")), turned(stacked(batch, f"{moving}_momentum"))
        gradient_Lrn = turned(stacked_gradients(batch, moving)) / (1.0 if both else self.scale() ** 2)
        damping_rr = self.config.damping * torch.eye(b_Lmr.shape[2], dtype=b_Lmr.dtype, device=b_Lmr.device)
        right_Lr2n = torch.cat([gradient_Lrn, b_Lmr.mT @ then_Lmr @ before_Lrn], 2)
        projected_Lrn, carried_Lrn = torch.linalg.solve(b_Lmr.mT @ b_Lmr + damping_rr, right_Lr2n).chunk(2, 2)
        momentum_Lrn = carried_Lrn.lerp(projected_Lrn, 1 - beta1)
        kept_Lrn = before_Lrn.lerp(projected_Lrn, 1 - beta1) if both else momentum_Lrn
        direction_Lrn = momentum_Lrn / (1 - beta1**count)
        put(batch, **{f"{moving}_momentum": turned(kept_Lrn), f"{resting}_then": turned(b_Lmr)})
        if self.config.second_moment:
            square_Lrn = turned(stacked(batch, f"{moving}_square")).lerp(projected_Lrn.square(), 1 - beta2)
            direction_Lrn = direction_Lrn / ((square_Lrn / (1 - beta2**count)).sqrt() + self.config.epsilon)
            put(batch, **{f"{moving}_square": turned(square_Lrn)})
        return direction_Lrn
