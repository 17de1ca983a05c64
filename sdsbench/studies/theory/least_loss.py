"""The least loss that a method can reach on a problem (its floor); excess loss is measured from there.

With C = (weight X^T X)^1/2 and the least-squares solution W_ls:  loss(W) = loss(W_ls) + 1/2 |(W - W_ls) C|^2, so
the best update of rank r follows from the SVD of (W_ls - W_base) C (Eckart-Young), that for fixed A and B of B R A from
a projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdsbench.studies.theory.problems import LinearProblem

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear


def dense_floor(problem: LinearProblem) -> float:
    """The least loss over all W, reachable by full fine-tuning."""
    return float(problem.loss(problem.x_tn @ _least_squares(problem).T))


def adapter_floor(problem: LinearProblem, layer: AdaptedLinear) -> float:
    """The least loss over the layer's trainable tensors.

    Trainable A, B: any update of rank r (2r with two branches; then only a lower bound, because their bases change only
    at refreshes). Trainable R between fixed A and B: any update within their spans.
    """
    missing_mn = _least_squares(problem) - layer.weight.detach()
    root_nn = _metric_root(problem)
    wanted_mn = missing_mn @ root_nn
    if layer.method.trains_between_fixed_factors:
        q_mr = torch.linalg.qr(layer.B)[0]
        q_nr = torch.linalg.qr((layer.A @ root_nn).T)[0]
        kept_mn = q_mr @ (q_mr.T @ wanted_mn @ q_nr) @ q_nr.T
        return dense_floor(problem) + 0.5 * float((wanted_mn - kept_mn).square().sum())
    rank = layer.method.largest_update_rank()
    return dense_floor(problem) + 0.5 * float(torch.linalg.svdvals(wanted_mn)[rank:].square().sum())


def _least_squares(problem: LinearProblem) -> Tensor:
    return torch.linalg.lstsq(problem.x_tn, problem.y_tm).solution.T


def _metric_root(problem: LinearProblem) -> Tensor:
    eigenvalues_n, vectors_nn = torch.linalg.eigh(problem.weight * problem.x_tn.T @ problem.x_tn)
    return (vectors_nn * eigenvalues_n.clamp_min(0).sqrt()) @ vectors_nn.T
