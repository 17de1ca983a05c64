"""Small dense linear algebra of the methods, batched over layers of equal shape.

Nothing here touches a global random state: every random draw comes from a generator that the caller passes.
Letters: L = layers in a batch, r = rank, m and n = sides of a weight, d = long side of a tall matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdsbench.core.lazy import torch
from sdsbench.methods.masters import as_master

if TYPE_CHECKING:
    from torch import Tensor

CERTIFIED_DEVIATION = 0.1
"""After one Cholesky pass, a Gram matrix this close to I makes the second pass orthonormal to rounding."""

CPU_BATCH = 2**18
"""Most fp32 numbers in one batch on the CPU (1 MiB): larger batches do not fit the cache and allocate new memory pages
each time."""


def batch_length(count: int, numbers: int, device: torch.device) -> int:
    """Number of layers per batch on `device`, for `count` layers with `numbers` factor entries each."""
    return count if device.type != "cpu" else max(1, min(count, CPU_BATCH // max(1, numbers)))


def orthonormal_columns(tall: Sequence[Tensor]) -> list[Tensor]:
    """Orthonormal bases Q_dr of the column spaces of tall matrices X_dr = Q R with diag R > 0, in fp32.

    Matrices of equal shape are handled as one batch. Columns are first scaled to length 1, so only their directions
    affect the conditioning. Two passes of Cholesky QR (Yamamoto et al. 2015, doi 10.1137/140961389) suffice for most
    matrices. If the Gram matrix of the second pass is too far from I, that matrix is factored again by Householder QR,
    which is orthonormal for any conditioning.

    |Q^T Q - I| is always at rounding level (below 1e-5). Above a condition number of about 1e7 (fp32), some directions
    of X are lost to rounding: Q is still orthonormal, but the columns for those directions, and for zero columns of X,
    are arbitrary.
    """
    results: list[Tensor | None] = [None] * len(tall)
    groups: dict[tuple[torch.Size, torch.device], list[int]] = {}
    for index, matrix in enumerate(tall):
        groups.setdefault((matrix.shape, matrix.device), []).append(index)
    for indices in groups.values():
        batch_Ldr = torch.stack([as_master(tall[index].detach()) for index in indices])
        for index, q_dr in zip(indices, _orthonormal_batch(batch_Ldr).unbind(), strict=True):
            results[index] = q_dr
    return [result for result in results if result is not None]


def _orthonormal_batch(x_Ldr: Tensor) -> Tensor:
    first_Ldr, _, first_info_L = _cholesky_pass(x_Ldr)
    q_Ldr, gram_Lrr, second_info_L = _cholesky_pass(first_Ldr)
    identity_rr = torch.eye(x_Ldr.shape[2], dtype=x_Ldr.dtype, device=x_Ldr.device)
    deviation_L = (gram_Lrr - identity_rr).abs().amax(dim=(1, 2))
    certified_L = (first_info_L == 0) & (second_info_L == 0) & (deviation_L < CERTIFIED_DEVIATION)
    if not bool(certified_L.all()):
        q_Ldr[~certified_L] = thin_qr(x_Ldr[~certified_L])[0]
    return q_Ldr


def _cholesky_pass(x_Ldr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(X R^-1, X^T X, info) with R^T R = X^T X; the factorisation runs on columns scaled to length 1.

    R^-1 (r x r) is formed explicitly; the second pass and its check correct the lower accuracy of the first.
    """
    gram_Lrr = x_Ldr.mT @ x_Ldr
    length_Lr = gram_Lrr.diagonal(dim1=1, dim2=2).sqrt().clamp_min(torch.finfo(x_Ldr.dtype).tiny)
    cosines_Lrr = gram_Lrr / length_Lr.unsqueeze(1) / length_Lr.unsqueeze(2)
    lower_Lrr, info_L = torch.linalg.cholesky_ex(cosines_Lrr)
    identity_Lrr = torch.eye(x_Ldr.shape[2], dtype=x_Ldr.dtype, device=x_Ldr.device).expand_as(lower_Lrr)
    inverse_Lrr = torch.linalg.solve_triangular(lower_Lrr.mT, identity_Lrr, upper=True) / length_Lr.unsqueeze(2)
    return x_Ldr @ inverse_Lrr, gram_Lrr, info_L


def thin_qr(x_dr: Tensor) -> tuple[Tensor, Tensor]:
    """(Q_dr, R_rr) by Householder QR with diag R >= 0: each column of Q has a product >= 0 with its column of X."""
    q_dr, r_rr = torch.linalg.qr(x_dr)
    sign_r = torch.where(r_rr.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q_dr.dtype)
    return q_dr * sign_r.unsqueeze(-2), r_rr * sign_r.unsqueeze(-1)


def product_svd(up_Lmr: Tensor, down_Lrn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of B A without forming it: (U_Lmr, sigma_Lr, V_Lnr) with B A = U diag(sigma) V^T.

    QR of B and of A^T, then the SVD of the r x r core. U and V have orthonormal columns even where B A has a
    lower rank (Householder QR).
    """
    q_up_Lmr, r_up_Lrr = thin_qr(up_Lmr)
    q_down_Lnr, r_down_Lrr = thin_qr(down_Lrn.mT)
    u_Lrr, sigma_Lr, vh_Lrr = torch.linalg.svd(r_up_Lrr @ r_down_Lrr.mT)
    return q_up_Lmr @ u_Lrr, sigma_Lr, q_down_Lnr @ vh_Lrr.mT


def sum_norm(up1_Lmr: Tensor, down1_Lrn: Tensor, up2_Lmr: Tensor, down2_Lrn: Tensor) -> Tensor:
    """|up1 down1 + up2 down2|_F per layer, shape (L,), from r x r Gram matrices without forming an m x n product."""
    first_L = (up1_Lmr.mT @ up1_Lmr * (down1_Lrn @ down1_Lrn.mT)).sum(dim=(1, 2))
    second_L = (up2_Lmr.mT @ up2_Lmr * (down2_Lrn @ down2_Lrn.mT)).sum(dim=(1, 2))
    cross_L = (up1_Lmr.mT @ up2_Lmr * (down1_Lrn @ down2_Lrn.mT)).sum(dim=(1, 2))
    return (first_L + second_L + 2 * cross_L).clamp_min(0).sqrt()


Eigen = tuple["Tensor", "Tensor"]  # eigenvalues_Lr and eigenvectors_Lrr of symmetric matrices


def positive_eigh(gram_Lrr: Tensor) -> Eigen:
    """(eigenvalues_Lr, eigenvectors_Lrr) of symmetric positive semi-definite matrices; eigenvalues that rounding made
    negative become 0."""
    eigenvalues_Lr, vectors_Lrr = torch.linalg.eigh(gram_Lrr)
    return eigenvalues_Lr.clamp_min(0), vectors_Lrr


def damped(eigen: Eigen, damping: float, relative: bool = True) -> Eigen:
    """The same matrices with `damping` added to each eigenvalue, or `damping` times their mean.

    With relative damping a zero matrix gets eigenvalues 1, so its "inverse" is finite where it multiplies 0.
    """
    eigenvalues_Lr, vectors_Lrr = eigen
    if not relative:
        return eigenvalues_Lr + damping, vectors_Lrr
    mean_L1 = eigenvalues_Lr.mean(dim=-1, keepdim=True)
    return torch.where(mean_L1 == 0, 1.0, eigenvalues_Lr + damping * mean_L1), vectors_Lrr


def sylvester(left: Eigen, right: Eigen, constant_Lrr: Tensor) -> Tensor:
    """X with P X + X Q = C, for P and Q given as (eigenvalues, eigenvectors)."""
    (p_Lr, u_Lrr), (q_Lr, v_Lrr) = left, right
    rotated_Lrr = u_Lrr.mT @ constant_Lrr @ v_Lrr
    return u_Lrr @ (rotated_Lrr / (p_Lr.unsqueeze(-1) + q_Lr.unsqueeze(-2))) @ v_Lrr.mT


def inverse(eigen: Eigen) -> Tensor:
    """The inverse of a symmetric matrix given as (eigenvalues, eigenvectors)."""
    eigenvalues_Lr, vectors_Lrr = eigen
    return (vectors_Lrr / eigenvalues_Lr.unsqueeze(-2)) @ vectors_Lrr.mT


def truncated_svd(matrix_mn: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` leading singular triples (U_mr, S_r, V_nr) by a full SVD in fp32."""
    u_mk, s_k, vh_kn = torch.linalg.svd(as_master(matrix_mn), full_matrices=False)
    return _with_fixed_signs(u_mk[:, :rank], s_k[:rank], vh_kn[:rank].mT)


def minor_svd(matrix_mn: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` singular triples (U_mr, S_r, V_nr) with the smallest values, largest first, by a full SVD in fp32."""
    u_mk, s_k, vh_kn = torch.linalg.svd(as_master(matrix_mn), full_matrices=False)
    return _with_fixed_signs(u_mk[:, -rank:], s_k[-rank:], vh_kn[-rank:].mT)


def randomised_svd(
    matrix_mn: Tensor, rank: int, generator: torch.Generator, oversampling: int, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """About the `rank` leading singular triples (U_mr, S_r, V_nr), in fp32 (Halko et al. 2011, algorithm 4.4).

    Subspace iteration from rank + oversampling random directions, drawn on the CPU from `generator`.
    torch.svd_lowrank does the same from the global generator.
    """
    matrix_mn = as_master(matrix_mn)
    m, n = matrix_mn.shape
    width = min(rank + oversampling, m, n)
    start_nk = torch.randn(n, width, generator=generator).to(matrix_mn)
    q_mk = torch.linalg.qr(matrix_mn @ start_nk)[0]
    for _ in range(iterations):
        q_nk = torch.linalg.qr(matrix_mn.mT @ q_mk)[0]
        q_mk = torch.linalg.qr(matrix_mn @ q_nk)[0]
    u_kk, s_k, vh_kn = torch.linalg.svd(q_mk.mT @ matrix_mn, full_matrices=False)
    return _with_fixed_signs(q_mk @ u_kk[:, :rank], s_k[:rank], vh_kn[:rank].mT)


def _with_fixed_signs(u_mr: Tensor, s_r: Tensor, v_nr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip signs so that the largest entry of every column of U is positive; then every machine gives the same
    signs."""
    largest_1r = u_mr.gather(0, u_mr.abs().argmax(0, keepdim=True))
    sign_1r = torch.where(largest_1r < 0, -1.0, 1.0).to(u_mr.dtype)
    return (u_mr * sign_1r).contiguous(), s_r.contiguous(), (v_nr * sign_1r).contiguous()
