"""Methods that split trainable factors off the base weight: W = (W0 - s B0 A0) + s B A, and only B and A train.

B and A start as B0 and A0, so training starts at W0. The frozen part W0 - s B0 A0 is rounded to the base's dtype; the
record holds the resulting distance of the starting weight from W0. B0 and A0 are kept (r(m + n) fp32 numbers a layer),
so that the adapter can be exported for the untouched base: dW = s(B A - B0 A0), a LoRA of rank 2r.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdsbench.core.lazy import torch
from sdsbench.methods.base import Branch, DataContext, Layers, LowRankConfig, Method
from sdsbench.methods.masters import as_master

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class WeightSplit(Method):
    """Base of PiSSA, MiLoRA and OLoRA, which differ in B0 and A0 alone."""

    config: LowRankConfig

    def __init__(self, config: LowRankConfig) -> None:
        super().__init__(config)
        self.rounding: dict[str, float] = {}  # per layer: |weight at step 0 - W0|_F / |W0|_F

    def initial_factors(self, layer: AdaptedLinear, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B0_mr, A0_rn) in fp32; never called on the meta device."""
        raise NotImplementedError

    def scale(self) -> float:
        return self.config.alpha / self.config.rank

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        (m, n), rank = layer.shape, self.config.rank
        if layer.weight.is_meta:
            b_mr, a_rn = torch.empty(m, rank, device="meta"), torch.empty(rank, n, device="meta")
        else:
            b_mr, a_rn = self.initial_factors(layer, generator)
        layer.add_parameter("A", a_rn)
        layer.add_parameter("B", b_mr)
        layer.add_buffer("A_initial", layer.A.detach().clone())
        layer.add_buffer("B_initial", layer.B.detach().clone())
        self._freeze_residual(layer, as_master(layer.weight.detach()))

    def _freeze_residual(self, layer: AdaptedLinear, base_mn: Tensor) -> None:
        """Replace the layer's weight by base - s B0 A0 (a new tensor: the model's own weight stays as it is)."""
        residual_mn = torch.addmm(base_mn, layer.B_initial, layer.A_initial, alpha=-self.scale())
        rounded_mn = residual_mn.to(layer.weight.dtype)
        if not layer.weight.is_meta:
            self.rounding[layer.name] = float((as_master(rounded_mn) - residual_mn).norm() / base_mn.norm())
        layer.weight = torch.nn.Parameter(rounded_mn, requires_grad=False)

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A)]

    def untouched_branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.A), (-layer.B_initial, layer.A_initial)]

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        worst = max(self.rounding.values())
        return {"residual_rounding_max": worst, "residual_rounding_mean": sum(self.rounding.values()) / len(layers)}

    def restore(self, layer: AdaptedLinear, tensors: Mapping[str, Tensor]) -> None:
        """Also remake the residual if the saved start is not this machine's (another SVD, another seed)."""
        same = all(torch.equal(getattr(layer, name).cpu(), tensors[name].cpu()) for name in ("A_initial", "B_initial"))
        base_mn = None if same else self.merged_start(layer)
        super().restore(layer, tensors)
        if base_mn is not None:
            self._freeze_residual(layer, base_mn)

    def merged_start(self, layer: AdaptedLinear) -> Tensor:
        """An approximation of W0_mn in fp32, limited by the residual's rounding: residual + s B0 A0, rounded to the
        base's dtype."""
        start_mn = torch.addmm(as_master(layer.weight.detach()), layer.B_initial, layer.A_initial, alpha=self.scale())
        return as_master(start_mn.to(layer.weight.dtype))
