"""Singular values and quantities derived from them, batched, accurate to about 1e-8 of the largest singular value.

They are computed in fp64 from the eigenvalues of the Gram matrix of the smaller side. For fp32 matrices this is as
accurate as a direct SVD except for singular values below that limit, and several times faster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Spectrum(NamedTuple):
    """Thin SVD of a batch: U_Lmk, sigma_Lk descending, V_Lnk, k = min(m, n)."""

    left: Tensor
    values: Tensor
    right: Tensor


def spectra(matrices_Lmn: Tensor) -> Spectrum:
    """The thin SVD of each matrix, in fp64. Singular vectors of zero singular values are zero columns."""
    wide_Lmn = matrices_Lmn.double()
    if wide_Lmn.shape[1] > wide_Lmn.shape[2]:
        left, values, right = spectra(wide_Lmn.mT)
        return Spectrum(right, values, left)
    squares_Lm, vectors_Lmm = torch.linalg.eigh(wide_Lmn @ wide_Lmn.mT)
    left_Lmk = vectors_Lmm.flip(-1)
    values_Lk = squares_Lm.flip(-1).clamp_min(0).sqrt()
    scaled_Lnk = wide_Lmn.mT @ left_Lmk
    right_Lnk = torch.where(values_Lk.unsqueeze(1) > 0, scaled_Lnk / values_Lk.unsqueeze(1), 0.0)
    return Spectrum(left_Lmk, values_Lk, right_Lnk)


def singular_values(matrices_Lmn: Tensor) -> Tensor:
    """sigma_Lk of each matrix, descending, in fp64."""
    wide_Lmn = matrices_Lmn.double()
    gram = wide_Lmn @ wide_Lmn.mT if wide_Lmn.shape[1] <= wide_Lmn.shape[2] else wide_Lmn.mT @ wide_Lmn
    return torch.linalg.eigvalsh(gram).flip(-1).clamp_min(0).sqrt()


def effective_rank(values_k: Tensor) -> float:
    """exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007): 1 to k; NaN for a zero matrix."""
    total = values_k.sum()
    if not total > 0:
        return float("nan")
    share_k = values_k / total
    return float(torch.special.entr(share_k).sum().exp())


def stable_rank(values_k: Tensor) -> float:
    """|M|_F^2 / sigma_1^2: 1 to k; NaN for a zero matrix."""
    return float(values_k.square().sum() / values_k[0].square()) if values_k[0] > 0 else float("nan")


def condition_number(values_k: Tensor) -> float:
    """sigma_1 / sigma_k; NaN where sigma_k is 0."""
    return float(values_k[0] / values_k[-1]) if values_k[-1] > 0 else float("nan")


def cosine(left_mn: Tensor, right_mn: Tensor) -> float:
    """<left, right> / (|left| |right|) of two matrices; NaN where one is zero."""
    left_mn, right_mn = left_mn.double(), right_mn.double()
    norms = left_mn.norm() * right_mn.norm()
    return float((left_mn * right_mn).sum() / norms) if norms > 0 else float("nan")


def principal_angles(basis_dr: Tensor, orthonormal_dk: Tensor) -> Tensor:
    """Angles in radians, ascending, between the span of `basis` and of an orthonormal basis.

    NaN where `basis` has a lower rank than columns. Small angles from sines (Bjorck and Golub 1973).
    """
    values_r = torch.linalg.svdvals(basis_dr.double())
    if not values_r[-1] > 1e-12 * values_r[0]:
        return torch.full((min(basis_dr.shape[1], orthonormal_dk.shape[1]),), float("nan"))
    q_dr = torch.linalg.qr(basis_dr.double())[0]
    cosines = torch.linalg.svdvals(q_dr.mT @ orthonormal_dk).clamp(0, 1)
    sines = torch.linalg.svdvals(orthonormal_dk - q_dr @ (q_dr.mT @ orthonormal_dk)).clamp(0, 1).flip(-1)
    sines = sines[: len(cosines)]
    return torch.where(cosines.square() < 0.5, cosines.acos(), sines.asin())


def intruder_dimensions(before_mk: Tensor, after_mk: Tensor) -> int:
    """Number of intruder dimensions (Shuttleworth et al. 2024) among the first ten left singular vectors of `after_mk`.

    These are the vectors whose |cosines| with all left singular vectors of W0, `before_mk`, are below one half.
    """
    cosines = (before_mk.mT @ after_mk[:, :10]).abs()
    return int((cosines.amax(dim=0) < 0.5).sum())
