"""Cross-entropy of a linear head without ever holding all logits.

For h_td hidden states at target positions and head W_vd, the logits t x v of a large vocabulary are the memory peak of
a step. Here they exist for `CHUNK` positions at a time, and the gradient of h (and of W, where it trains) is made in
the same pass, so nothing but dh_td is kept for backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK = 256


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_td: Tensor, weight_vd: Tensor, labels_t: Tensor, softcap: float | None) -> Tensor:
        need_h, need_weight = ctx.needs_input_grad[:2]
        dh_td = torch.empty_like(h_td) if need_h else None
        dweight_vd = torch.zeros_like(weight_vd, dtype=torch.float32) if need_weight else None
        total = torch.zeros((), dtype=torch.float32, device=h_td.device)
        for start in range(0, len(h_td), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = linear(h_td[rows], weight_vd).float()
            slope = None
            if softcap is not None:
                squashed = torch.tanh(logits / softcap)
                logits, slope = softcap * squashed, 1 - squashed.square()
            log_z = logits.logsumexp(dim=-1, keepdim=True)
            gold = logits.gather(1, labels_t[rows, None])
            total += (log_z - gold).sum()
            if not (need_h or need_weight):
                continue
            dlogits = (logits - log_z).exp_()
            dlogits.scatter_add_(1, labels_t[rows, None], torch.full_like(gold, -1.0))
            if slope is not None:
                dlogits *= slope
            dlogits = dlogits.to(h_td.dtype)
            if dh_td is not None:
                torch.mm(dlogits, weight_vd, out=dh_td[rows])
            if dweight_vd is not None:
                dweight_vd += dlogits.T.mm(h_td[rows])
        ctx.save_for_backward(dh_td, dweight_vd)
        ctx.weight_dtype = weight_vd.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dh_td, dweight_vd = ctx.saved_tensors
        dh = None if dh_td is None else dh_td * grad.to(dh_td.dtype)
        dweight = None if dweight_vd is None else (dweight_vd * grad).to(ctx.weight_dtype)
        return dh, dweight, None, None


def linear_cross_entropy(h_td: Tensor, weight_vd: Tensor, labels_t: Tensor, softcap: float | None = None) -> Tensor:
    """Summed cross-entropy (natural log, fp32 scalar) of softmax(softcapped(h W^T)) against the labels.

    Equal to `cross_entropy(logits.float(), labels, reduction="sum")` to rounding. `softcap` as in Gemma-2.
    """
    return _LinearCrossEntropy.apply(h_td, weight_vd, labels_t, softcap)
