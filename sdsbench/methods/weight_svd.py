"""Singular triples of a base weight: the leading ones for PiSSA and LoRA-XS, the minor ones for MiLoRA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdsbench.core.errors import Problem
from sdsbench.core.lazy import torch
from sdsbench.methods.base import LowRankConfig
from sdsbench.methods.linear_algebra import minor_svd, randomised_svd, truncated_svd
from sdsbench.methods.svd_cache import cached_triples

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear

SVD_KINDS = ("exact", "fast")


@dataclass
class WeightSVDConfig(LowRankConfig):
    """Keys of methods that start from the SVD of the base weight."""

    svd: str = "exact"
    svd_iterations: int = 4
    svd_oversampling: int = 0

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.svd not in SVD_KINDS:
            yield Problem("method.svd", self.svd, " or ".join(SVD_KINDS))
        if self.svd_iterations < 0:
            yield Problem("method.svd_iterations", self.svd_iterations, "a whole number from 0")
        if self.svd_oversampling < 0:
            yield Problem("method.svd_oversampling", self.svd_oversampling, "a whole number from 0")


def weight_svd(
    layer: AdaptedLinear, config: WeightSVDConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(U_mr, S_r, V_nr) of W0 in fp32, through the cache; on the meta device only shapes."""
    m, n = layer.shape
    weight_mn = layer.weight.detach()
    if weight_mn.is_meta:
        return tuple(
            torch.empty(shape, device="meta") for shape in ((m, config.rank), (config.rank,), (n, config.rank))
        )  # type: ignore[return-value]
    if config.svd == "exact":
        return cached_triples(weight_mn, config.rank, "exact", 0, lambda: truncated_svd(weight_mn, config.rank))
    # a generator of its own: what the caller draws next must not depend on whether the cache had the factors
    sketch = torch.Generator().manual_seed(generator.initial_seed() ^ 0x5D)
    algorithm = f"fast iterations={config.svd_iterations} oversampling={config.svd_oversampling}"
    return cached_triples(
        weight_mn,
        config.rank,
        algorithm,
        generator.initial_seed(),
        lambda: randomised_svd(weight_mn, config.rank, sketch, config.svd_oversampling, config.svd_iterations),
    )


def minor_weight_svd(layer: AdaptedLinear, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """(U_mr, S_r, V_nr) of W0's `rank` smallest singular values in fp32, through the cache."""
    weight_mn = layer.weight.detach()
    return cached_triples(weight_mn, rank, "minor", 0, lambda: minor_svd(weight_mn, rank))


def balanced_factors(triples: tuple[Tensor, Tensor, Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """(B_mr, A_rn) with scale * B A = U S V^T, each with the square root of the singular values."""
    u_mr, s_r, v_nr = triples
    root_r = (s_r / scale).sqrt()
    return u_mr * root_r, (v_nr * root_r).t().contiguous()
