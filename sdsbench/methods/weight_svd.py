"""Singular triples of a base weight: the leading ones for PiSSA and LoRA-XS, the minor ones for MiLoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import WholeFromZero, only_where
from sdsbench.methods.base import LowRankConfig, SVDIterations
from sdsbench.methods.linear_algebra import minor_svd, randomised_svd, truncated_svd
from sdsbench.methods.svd_cache import cached_triples

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


class WeightSVDConfig(LowRankConfig):
    """Keys of methods that start from the SVD of the base weight."""

    svd: Literal["exact", "fast"] = Field("exact", description="fast: subspace iteration")
    svd_iterations: Annotated[SVDIterations, only_where(svd="fast")] = Field(
        4, description="number of subspace iterations of svd=fast"
    )
    svd_oversampling: Annotated[WholeFromZero, only_where(svd="fast")] = Field(
        0, description="number of extra directions of svd=fast"
    )


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
    # a separate generator: the caller's next draws must not depend on whether the cache had the factors
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
