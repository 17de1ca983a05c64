"""SDS-LoRA (arXiv 2606.16454): the singular directions of the update are decoupled from its singular values.

Warm-up (10 optimizer steps): plain LoRA, W = W0 + s B A, s = alpha / sqrt r.
Split, once: B A = U Sigma V^T; Q_B <- U_mr, Q_A <- V_nr, A <- 1/2 Sigma V^T, B <- 1/2 U Sigma, optimizer state
cleared. Main phase, Q_A and Q_B constant:

    W = W0 + s (Q_B A + B Q_A^T)        dL/dA = s Q_B^T G        dL/dB = s G Q_A

Refresh, on a schedule: Q_A <- qr(A^T), Q_B <- qr(B); A, B and the optimizer state are kept, so changing Q changes the
update at once; the record reports this jump. To first order W moves by -eta s^2 (P_B G + G P_A) with orthogonal
projectors P, where LoRA's -eta s^2 (B B^T G + G A^T A) carries the squared singular values.

Variants are ablations of single claims: `scaled_bases` has two branches whose bases keep Sigma (`scaling` is the
author's form of it, with the root of Sigma / 2 in bases and factors), `flat_lora` is LoRA whose factors are made
orthonormal (flat spectrum, no decoupling), `reset_lora` is LoRA with the optimizer reset alone.

The first author's code of November 2025 (iclr2026_rebuttal, trainer.py) trains twice: 50 steps (commonsense 55) at a
constant rate, after every tenth of which Q_B, Q_A <- the r leading singular vectors of the update, A = B = 0 and the
optimizer's state is cleared; then the run as above with those bases, from A = B = 0 and a new optimizer. `pre_steps`
offers that; whether the paper of June 2026 kept it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.lazy import torch
from sdsbench.core.section import Count, FromZero, WholeFromZero, only_where, other_than
from sdsbench.methods.base import Alpha, Branch, DataContext, Layers, LowRankConfig, Method, Optimizer, register
from sdsbench.methods.factor_stacks import stacked
from sdsbench.methods.initial import add_lora_factors
from sdsbench.methods.linear_algebra import orthonormal_columns, product_svd, sum_norm, thin_qr

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear

_TWO_BRANCHES = ("sds", "scaled_bases", "scaling")
_REFRESHING = (*_TWO_BRANCHES, "flat_lora")


class SDSLoRAConfig(LowRankConfig):
    name: str = "sds_lora"
    alpha: Alpha = Field(4.0, description="determines s = alpha / sqrt r; the authors use 4")
    warmup_steps: Count = Field(10, description="optimizer steps of plain LoRA before the split (B starts at 0)")
    variant: Literal["sds", "scaled_bases", "scaling", "flat_lora", "reset_lora"] = Field(
        "sds", description="the method, or one of the ablations that separate its claims"
    )
    refresh: Annotated[Literal["author", "relative", "every", "never"], only_where(variant=_REFRESHING)] = Field(
        "author", description="rule for when the bases are recomputed"
    )
    phases: Annotated[Count, only_where(variant=_REFRESHING, refresh=("author", "relative"))] = Field(
        5, description="equal parts of the run; in part k, the rules author and relative refresh every k steps"
    )
    clear_state: bool = Field(True, description="clear the optimizer's state at the split")
    clear_head: Annotated[bool, only_where(clear_state=True)] = Field(
        False, description="clear also the state of a trained head (the author's code)"
    )
    pre_steps: Annotated[WholeFromZero, only_where(variant=_TWO_BRANCHES)] = Field(
        0, description="optimizer steps before the run, only to find its first bases (the author's code: 50 or 55)"
    )
    pre_interval: Annotated[Count, only_where(variant=_TWO_BRANCHES, pre_steps=other_than(0))] = Field(
        10, description="number of these steps after which the bases are recomputed and A = B = 0"
    )
    guard: Annotated[FromZero, only_where(variant=_REFRESHING, refresh=("author", "relative", "every"))] = Field(
        1e-2, description="layers with a shorter row of A or column of B keep their bases at a refresh (0: none do)"
    )

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.variant in _TWO_BRANCHES and 0 < self.pre_steps < self.pre_interval:
            accepted = f"0, or at least method.pre_interval={self.pre_interval}, the steps that find the first bases"
            advice = "Without bases the run would start from A = B = 0, where every gradient is 0."
            yield Problem("method.pre_steps", self.pre_steps, accepted, advice)


def refresh_due(rule: str, step: int, total_steps: int, warmup_steps: int, phases: int) -> bool:
    """Whether the bases are refreshed after optimizer step `step` (from 1) of `total_steps`.

    Both scheduled rules cut the run into `phases` equal parts and refresh every k steps in part k; `author`
    counts steps from the start of the run (the first author's code), `relative` from the end of the warm-up.
    """
    if step <= warmup_steps or rule == "never":
        return False
    if rule == "every":
        return True
    if rule == "author":
        phase_steps = max(1, total_steps // phases)
        return step % (step // phase_steps + 1) == 0
    done, main_steps = step - warmup_steps, max(1, total_steps - warmup_steps)
    return done % max(1, math.ceil(phases * done / main_steps)) == 0


@register("sds_lora", SDSLoRAConfig)
class SDSLoRA(Method):
    config: SDSLoRAConfig
    title = "SDS-LoRA"
    form_titles: ClassVar[Mapping[str, str]] = {
        "method.variant=sds": "SDS-LoRA",
        "method.variant=scaled_bases": "SDS-LoRA, bases keep their singular values",
        "method.variant=scaling": "SDS-LoRA, the author's `scaling`",
        "method.variant=flat_lora": "LoRA with flat spectrum",
        "method.variant=reset_lora": "LoRA with optimizer reset",
        "method.refresh=author": "",
        "method.refresh=every": ", refreshed at every step",
        "method.refresh=never": ", never refreshed",
    }
    arxiv = "2606.16454"

    def __init__(self, config: SDSLoRAConfig) -> None:
        super().__init__(config)
        self.has_bases = False

    def scale(self) -> float:
        return self.config.alpha / math.sqrt(self.config.rank)

    def two_branches(self) -> bool:
        return self.config.variant in _TWO_BRANCHES

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        add_lora_factors(layer, self.config.rank, generator)
        if self.two_branches():
            m, n = layer.shape
            layer.add_buffer("Q_B", torch.zeros(m, self.config.rank))
            layer.add_buffer("Q_A", torch.zeros(n, self.config.rank))

    def largest_update_rank(self) -> int:
        return self.config.rank * (2 if self.two_branches() else 1)

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        if self.has_bases and self.two_branches():
            return [(layer.Q_B, layer.A), (layer.B, layer.Q_A.t())]
        return [(layer.B, layer.A)]

    def skip_warmup(self) -> None:
        self.has_bases = True

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        if not self.config.pre_steps or not self.two_branches():
            return {}

        def renew(step: int, optimizer: Optimizer) -> None:
            if step % self.config.pre_interval == 0:
                self._restart_on_new_bases(layers)
                optimizer.clear_state(head=True)

        context.train_at_constant_rate(self.config.pre_steps, renew)
        with torch.no_grad():
            for layer in layers.values():
                layer.A.zero_()
                layer.B.zero_()
        return {"pre_steps": float(self.config.pre_steps)}

    def _restart_on_new_bases(self, layers: Layers) -> None:
        """Q_B, Q_A <- the leading singular vectors of the update, with the variant's share of Sigma; A = B = 0."""
        with torch.no_grad():
            for batch in _batches(list(layers.values())):
                u_Lmr, sigma_Lr, v_Lnr, _ = self._svd_of_updates(batch)
                level_Lr = torch.ones_like(sigma_Lr) if self.config.variant == "sds" else sigma_Lr.sqrt()
                for layer, u_mr, v_nr, level_r in zip(batch, u_Lmr, v_Lnr, level_Lr, strict=True):
                    layer.Q_B.copy_(u_mr * level_r)
                    layer.Q_A.copy_(v_nr * level_r)
                    layer.A.zero_()
                    layer.B.zero_()
        self.has_bases = True

    def after_step(self, layers: Layers, step: int, total_steps: int, optimizer: Optimizer) -> dict[str, float]:
        config = self.config
        if step == config.warmup_steps:
            with torch.no_grad():
                changes = self._split(layers)
            self.has_bases = True
            if config.clear_state:
                optimizer.clear_state(head=config.clear_head)
            return {"split": 1.0, **changes}
        if config.variant == "reset_lora":
            return {}
        if not refresh_due(config.refresh, step, total_steps, config.warmup_steps, config.phases):
            return {}
        with torch.no_grad():
            return self._refresh(layers)

    def _split(self, layers: Layers) -> dict[str, float]:
        """Factor the update of the warm-up. Returns the jumps of the updates where it changes them.

        It changes them in flat_lora, which flattens their spectra, and after pre_steps: the bases found there give the
        warm-up an update of rank 2r, of which the split keeps the r leading singular triples, as the author's code
        does.
        """
        if self.config.variant == "reset_lora":
            return {}
        if self.config.variant == "flat_lora":
            return _facts_of(_flatten(list(layers.values())))
        jumps = []
        for batch in _batches(list(layers.values())):
            u_Lmr, sigma_Lr, v_Lnr, jump_L = self._svd_of_updates(batch)
            jumps.append(jump_L.cpu())
            basis_Lr = {  # part of Sigma in the bases; the factors hold the rest of Sigma / 2
                "sds": torch.ones_like(sigma_Lr),
                "scaled_bases": sigma_Lr.sqrt(),
                "scaling": (0.5 * sigma_Lr).sqrt(),
            }[self.config.variant]
            factor_Lr = 0.5 * sigma_Lr if self.config.variant == "sds" else 0.5 * sigma_Lr / basis_Lr
            factor_Lr = torch.where(sigma_Lr == 0, 0.0, factor_Lr)
            for layer, u_mr, v_nr, basis_r, factor_r in zip(batch, u_Lmr, v_Lnr, basis_Lr, factor_Lr, strict=True):
                layer.Q_B.copy_(u_mr * basis_r)
                layer.Q_A.copy_(v_nr * basis_r)
                layer.B.copy_(u_mr * factor_r)
                layer.A.copy_((v_nr * factor_r).t())
        return _facts_of(torch.cat(jumps)) if self.has_bases else {}

    def _svd_of_updates(self, batch: Sequence[AdaptedLinear]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The r leading singular triples of each layer's update (without s): of B A, or with bases of the sum; and the
        relative norm of the rest of the update."""
        if not self.has_bases:
            u_Lmr, sigma_Lr, v_Lnr = product_svd(stacked(batch, "B"), stacked(batch, "A"))
            return u_Lmr, sigma_Lr, v_Lnr, torch.zeros_like(sigma_Lr[:, 0])
        up_LmR = torch.cat([stacked(batch, "B"), stacked(batch, "Q_B")], 2)  # R = 2 r
        down_LRn = torch.cat([stacked(batch, "Q_A").mT, stacked(batch, "A")], 1)
        u_LmR, sigma_LR, v_LnR = product_svd(up_LmR, down_LRn)
        rank = self.config.rank
        rest_L = _ratio(sigma_LR[:, rank:].norm(dim=1), sigma_LR.norm(dim=1))
        return u_LmR[..., :rank], sigma_LR[..., :rank], v_LnR[..., :rank], rest_L

    def _refresh(self, layers: Layers) -> dict[str, float]:
        """Compute new bases for every layer that passes the guard; returns the jumps of the updates relative to their
        norms."""
        passed = [layer for layer, ok in zip(layers.values(), self._guard(list(layers.values())), strict=True) if ok]
        facts = {"refreshed_layers": float(len(passed)), "skipped_layers": float(len(layers) - len(passed))}
        if not passed:
            return facts
        jumps = _flatten(passed) if self.config.variant == "flat_lora" else self._renew_bases(passed)
        return facts | _facts_of(jumps)

    def _guard(self, layers: Sequence[AdaptedLinear]) -> list[bool]:
        """For each layer: whether every row norm of A and every column norm of B exceeds the guard."""
        smallest = [torch.minimum(layer.A.norm(dim=1).min(), layer.B.norm(dim=0).min()) for layer in layers]
        return (torch.stack([value.to(smallest[0].device) for value in smallest]) > self.config.guard).tolist()

    def _renew_bases(self, layers: Sequence[AdaptedLinear]) -> Tensor:
        if self.config.variant == "scaled_bases":  # the bases as the split made them: twice the factors
            bases = [2 * layer.A.t() for layer in layers], [2 * layer.B for layer in layers]
        elif self.config.variant == "scaling":
            bases = [_scaled_basis(layer.A.t()) for layer in layers], [_scaled_basis(layer.B) for layer in layers]
        else:
            bases = (
                orthonormal_columns([layer.A.t() for layer in layers]),
                orthonormal_columns([layer.B for layer in layers]),
            )
        renewed = {layer.name: (q_nr, q_mr) for layer, q_nr, q_mr in zip(layers, *bases, strict=True)}
        jumps = []
        for batch in _batches(layers):
            a_Lrn, b_Lmr = stacked(batch, "A"), stacked(batch, "B")
            old_a_Lnr, old_b_Lmr = stacked(batch, "Q_A"), stacked(batch, "Q_B")
            for layer in batch:
                q_nr, q_mr = renewed[layer.name]
                layer.Q_A.copy_(q_nr)
                layer.Q_B.copy_(q_mr)
            moved_a_Lrn, moved_b_Lmr = (stacked(batch, "Q_A") - old_a_Lnr).mT, stacked(batch, "Q_B") - old_b_Lmr
            jump_L = sum_norm(moved_b_Lmr, a_Lrn, b_Lmr, moved_a_Lrn)
            jumps.append(_ratio(jump_L, sum_norm(old_b_Lmr, a_Lrn, b_Lmr, old_a_Lnr.mT)).cpu())
        return torch.cat(jumps)

    def state(self) -> dict[str, Any]:
        return {"has_bases": self.has_bases}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.has_bases = state["has_bases"]


def _batches(layers: Sequence[AdaptedLinear]) -> list[list[AdaptedLinear]]:
    from sdsbench.methods.attach import group_by_shape

    return group_by_shape({layer.name: layer for layer in layers})


def _facts_of(jumps: Tensor) -> dict[str, float]:
    return {"jump_mean": float(jumps.mean()), "jump_max": float(jumps.max())}


def _ratio(part_L: Tensor, whole_L: Tensor) -> Tensor:
    """part / whole; 0 where an update is 0."""
    return part_L / whole_L.clamp_min(torch.finfo(whole_L.dtype).tiny)


def _scaled_basis(x_dr: Tensor) -> Tensor:
    """Q diag(R) of x = Q R: orthogonal columns, each as long as the part of x's column that is orthogonal to the
    columns before."""
    q_dr, r_rr = thin_qr(x_dr)
    return q_dr * r_rr.diagonal()


def _flatten(layers: Sequence[AdaptedLinear]) -> Tensor:
    """B <- c U, A <- c V^T: orthonormal factors of equal weight, c^2 = |B A|_F / sqrt r; relative jumps, per layer."""
    jumps = []
    for batch in _batches(layers):
        u_Lmr, sigma_Lr, v_Lnr = product_svd(stacked(batch, "B"), stacked(batch, "A"))
        norm_L1 = sigma_Lr.norm(dim=1, keepdim=True)
        level_L1 = norm_L1 / math.sqrt(sigma_Lr.shape[1])
        jumps.append(_ratio((sigma_Lr - level_L1).norm(dim=1), norm_L1.squeeze(1)).cpu())
        for layer, u_mr, v_nr, level_1 in zip(batch, u_Lmr, v_Lnr, level_L1, strict=True):
            layer.B.copy_(u_mr * level_1.sqrt())
            layer.A.copy_((v_nr * level_1.sqrt()).t())
    return torch.cat(jumps)
