"""Chunked cross-entropy of a linear head, which never holds all logits at once.

With hidden states h_td at t target positions and head weight W_vd, the logits t x v of a large vocabulary would be the
memory peak of a step. Here they exist for `CHUNK` positions at a time. The forward pass also computes the gradient
dh_td, the only tensor kept for backward. If W is trained, backward computes its gradient for some rows of W at a time
over all positions: the logits are then computed twice, but no fp32 buffer of the size of W is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from sdsbench.methods.masters import as_master

CHUNK = 256


def _logits(h_td: Tensor, weight_vd: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits t x v in fp32 and, with soft-capping, its derivative at each logit (else None)."""
    logits = linear(h_td, weight_vd).float()
    if softcap is None:
        return logits, None
    squashed = logits.div_(softcap).tanh_()
    slope = squashed.square().neg_().add_(1)
    return squashed.mul_(softcap), slope


def _chunk(
    h_cd: Tensor, weight_vd: Tensor, labels_c1: Tensor, softcap: float | None, dh_cd: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(summed loss, log Z c x 1 of each position, Z the softmax denominator); writes the gradient of h to `dh_cd`.

    All steps work in place on one c x v tensor of logits, which is freed on return.
    """
    logits, slope = _logits(h_cd, weight_vd, softcap)
    gold, largest = logits.gather(1, labels_c1), logits.amax(dim=-1, keepdim=True)
    shares = logits.sub_(largest).exp_()
    z = shares.sum(dim=-1, keepdim=True)
    log_z = largest + z.log()
    if dh_cd is not None:
        dlogits = shares.div_(z).scatter_add_(1, labels_c1, torch.full_like(gold, -1.0))
        if slope is not None:
            dlogits *= slope
        torch.mm(dlogits.to(h_cd.dtype), weight_vd, out=dh_cd)
    return (log_z - gold).sum(), log_z


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_td: Tensor, weight_vd: Tensor, labels_t: Tensor, softcap: float | None) -> Tensor:
        need_h, need_weight = ctx.needs_input_grad[:2]
        dh_td = torch.empty_like(h_td) if need_h else None
        total = torch.zeros((), dtype=torch.float32, device=h_td.device)
        log_zs = []
        for start in range(0, len(h_td), CHUNK):
            rows = slice(start, start + CHUNK)
            out = None if dh_td is None else dh_td[rows]
            loss, log_z = _chunk(h_td[rows], weight_vd, labels_t[rows, None], softcap, out)
            total += loss
            log_zs.append(log_z)
        ctx.save_for_backward(dh_td, *((h_td, weight_vd, labels_t, torch.cat(log_zs)) if need_weight else ()))
        ctx.softcap = softcap
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dh_td, *of_weight = ctx.saved_tensors
        # In fp32: `grad` is 1 / targets, and in bf16 it would be rounded by up to 0.4 % for every position alike.
        dh = None if dh_td is None else (as_master(dh_td) * grad).to(dh_td.dtype)
        return dh, _weight_gradient(grad, ctx.softcap, *of_weight) if of_weight else None, None, None


def _weight_gradient(
    grad: Tensor, softcap: float | None, h_td: Tensor, weight_vd: Tensor, labels_t: Tensor, log_z_t1: Tensor
) -> Tensor:
    """dL/dW_vd in the dtype of W, in blocks of rows whose logits are no more than those of a forward chunk."""
    dweight_vd = torch.empty_like(weight_vd)
    size = max(1, CHUNK * len(weight_vd) // len(h_td))
    for start in range(0, len(weight_vd), size):
        rows = slice(start, start + size)
        _rows_gradient(grad, softcap, h_td, weight_vd[rows], labels_t - start, log_z_t1, dweight_vd[rows])
    return dweight_vd


def _rows_gradient(
    grad: Tensor,
    softcap: float | None,
    h_td: Tensor,
    weight_wd: Tensor,
    labels_t: Tensor,
    log_z_t1: Tensor,
    out: Tensor,
) -> None:
    """Write dL/dW for w rows of W to `out`; labels count from the first of these rows, others are out of range."""
    logits, slope = _logits(h_td, weight_wd, softcap)
    dlogits = logits.sub_(log_z_t1).exp_()
    here_t = (labels_t >= 0) & (labels_t < len(weight_wd))
    dlogits.scatter_add_(1, labels_t.clamp(0, len(weight_wd) - 1)[:, None], -here_t.to(dlogits.dtype)[:, None])
    if slope is not None:
        dlogits *= slope
    torch.mm(dlogits.mul_(grad).to(h_td.dtype).T, h_td, out=out)


def linear_cross_entropy(h_td: Tensor, weight_vd: Tensor, labels_t: Tensor, softcap: float | None = None) -> Tensor:
    """Summed cross-entropy (natural log, fp32 scalar) of softmax(softcapped(h W^T)) against the labels.

    Equal to `cross_entropy(logits.float(), labels, reduction="sum")` to rounding. `softcap` as in Gemma-2.
    """
    return _LinearCrossEntropy.apply(h_td, weight_vd, labels_t, softcap)
