"""One adapted layer for several runs: a joint product with the shared base weight, and each run's low-rank update.

The runs' tokens lie end to end in x_tn; run j owns tokens[j] consecutive rows. Each run's method computes its low-rank
branches as it does when it trains alone. Weights that are not shared (PiSSA's residuals) get a product of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sdsbench.methods.base import RowScale
from sdsbench.methods.layer import (
    UNSCALED,
    AdaptedLinear,
    Call,
    block_gradients,
    joined,
    magnitude_gradient,
    rescaled,
    scaled_product,
    widths_of,
)


@dataclass
class Layout:
    """How many tokens of the current joint batch each run owns; shared by all layers of a joint model."""

    tokens: list[int] = field(default_factory=list)


class GroupedLinear(nn.Module):
    """The same layer of several runs, x t x n -> t x m. `members` stay registered with the models of their own runs."""

    def __init__(self, members: Sequence[AdaptedLinear], layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self._members = tuple(members)  # torch registers no modules in a tuple: their parameters belong to the runs
        first = members[0]
        self.out_features = first.out_features
        shared = all(member.weight is first.weight for member in members)
        self._weights = (first.weight,) if shared else tuple(member.weight for member in members)

    def forward(self, x: Tensor) -> Tensor:
        x_tn = x.reshape(-1, x.shape[-1])
        calls, tensors = [], []
        for member, rows_tn in zip(self._members, x_tn.split(self.layout.tokens), strict=True):
            asked: Any = member.method.forward(_RecordingLayer(member), rows_tn)  # type: ignore[arg-type]
            calls.append(asked.call)
            tensors += [*(asked.rows or UNSCALED), *asked.blocks]
        bias_m = self._members[0].bias
        y_tm = _GroupedLowRank.apply(x_tn, bias_m, self._weights, list(self.layout.tokens), calls, *tensors)
        return y_tm.view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class _LowRankArguments:
    """The arguments of a low-rank forward pass that a method requested on a layer."""

    call: Call
    rows: RowScale | None
    blocks: list[Tensor]


class _RecordingLayer:
    """Proxy of an adapted layer whose `low_rank_forward` returns its arguments instead of computing the product."""

    def __init__(self, layer: AdaptedLinear) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def low_rank_forward(
        self,
        x_tn: Tensor,
        branches: Sequence[tuple[Tensor, Tensor]],
        scale: float,
        rows: RowScale | None = None,
        drops_base: bool = False,
    ) -> _LowRankArguments:
        call = self._layer.call(scale, len(x_tn), None, drops_base)
        return _LowRankArguments(call, rows, [block for branch in branches for block in branch])


class _GroupedLowRank(torch.autograd.Function):
    """`methods.layer._LowRankLinear` for several runs.

    For each run, `tensors` holds DoRA's magnitude and norm (or two Nones), followed by the run's low-rank factors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_tn: Tensor,
        bias_m: Tensor | None,
        weights: Sequence[Tensor],
        tokens: Sequence[int],
        calls: Sequence[Call],
        *tensors: Tensor | None,
    ) -> Tensor:
        transposed, drops_base = [weight.t() for weight in weights], calls[0].drops_base  # the same in all runs
        rescaled_tn = x_tn
        if drops_base:
            pairs = zip(calls, x_tn.split(list(tokens)), strict=True)
            rescaled_tn = torch.cat([call.dropped(x_jn) for call, x_jn in pairs])
        y_tm = _each_with_its_weight(rescaled_tn, transposed, tokens)
        scaled = False
        used: list[Tensor | None] = []
        for x_jn, y_jm, call, (magnitude_m, norm_m, *blocks) in _runs(tokens, calls, tensors, x_tn, y_tm):
            up_mK, down_Kn = joined(blocks, x_tn.dtype)
            used += [magnitude_m, norm_m, up_mK, down_Kn]
            h_Kj = down_Kn @ call.dropped(x_jn).t()
            y_jm.addmm_(h_Kj.t(), up_mK.t(), alpha=call.scale)
            if magnitude_m is not None:
                scaled = True
                rescaled(y_jm, magnitude_m, norm_m, out=y_jm)
        ctx.save_for_backward(x_tn, y_tm if scaled else None, *used)
        ctx.weights, ctx.tokens, ctx.calls = weights, tokens, calls
        ctx.widths = widths_of(blocks)  # the same in all runs
        if drops_base:
            y_tm = y_tm + _each_with_its_weight(x_tn - rescaled_tn, transposed, tokens)
        return y_tm if bias_m is None else y_tm + bias_m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_tm: Tensor) -> tuple[Tensor | None, ...]:
        x_tn, scaled_tm, *used = ctx.saved_tensors
        output_tm = g_tm
        if scaled_tm is not None:
            g_tm = g_tm.clone()  # scaled in place below
        needs_x, *_ = ctx.needs_input_grad
        needed = ctx.needs_input_grad[5:]
        rows = (x_tn, g_tm) if scaled_tm is None else (x_tn, g_tm, scaled_tm)
        gradients: list[Tensor | None] = []
        additions: list[tuple[Call, Tensor, Tensor]] = []
        for j, (x_jn, g_jm, *scaled, call, (magnitude_m, norm_m, up_mK, down_Kn)) in enumerate(
            _runs(ctx.tokens, ctx.calls, used, *rows)
        ):
            width = 2 + 2 * len(ctx.widths)
            needs_magnitude, _, *needs_block = needed[j * width : (j + 1) * width]
            magnitude_gradient_m = None
            if magnitude_m is not None:
                if needs_magnitude:
                    magnitude_gradient_m = magnitude_gradient(g_jm, scaled[0], magnitude_m)
                rescaled(g_jm, magnitude_m, norm_m, out=g_jm)
            u_Kj = scaled_product(up_mK.t(), g_jm.t(), call.scale)
            found = block_gradients(call, g_jm, x_jn, u_Kj, down_Kn, ctx.widths, needs_block)
            gradients += [magnitude_gradient_m, None, *found]
            additions.append((call, u_Kj, down_Kn))
        dx_tn = None
        if needs_x and ctx.calls[0].drops_base:
            dx_tn = _each_with_its_weight(output_tm, ctx.weights, ctx.tokens)
            through_tn = _each_with_its_weight(g_tm - output_tm, ctx.weights, ctx.tokens)
            split = (tensor.split(list(ctx.tokens)) for tensor in (dx_tn, through_tn))
            for dx_jn, through_jn, (call, u_Kj, down_Kn) in zip(*split, additions, strict=True):
                dx_jn.add_(call.dropout_backward(torch.addmm(through_jn, u_Kj.t(), down_Kn)))
        elif needs_x:
            dx_tn = _each_with_its_weight(g_tm, ctx.weights, ctx.tokens)
            for dx_jn, (call, u_Kj, down_Kn) in zip(dx_tn.split(list(ctx.tokens)), additions, strict=True):
                if call.dropout:
                    dx_jn.add_(call.dropout_backward(u_Kj.t() @ down_Kn))
                else:
                    dx_jn.addmm_(u_Kj.t(), down_Kn)
        return dx_tn, None, None, None, None, *gradients


def _runs(
    tokens: Sequence[int], calls: Sequence[Call], tensors: Sequence[Any], *rows: Tensor
) -> Iterator[tuple[Any, ...]]:
    """Yield for each run its rows of every tensor in `rows`, its call, and its part of `tensors`."""
    width = len(tensors) // len(tokens)
    parts = [tensors[j * width : (j + 1) * width] for j in range(len(tokens))]
    yield from zip(*(tensor.split(list(tokens)) for tensor in rows), calls, parts, strict=True)


def _each_with_its_weight(x_tn: Tensor, weights: Sequence[Tensor], tokens: Sequence[int]) -> Tensor:
    """x_tn times the weight: one product if all runs share the weight, else one product for each run."""
    if len(weights) == 1:
        return x_tn @ weights[0]
    return torch.cat([rows @ weight for rows, weight in zip(x_tn.split(list(tokens)), weights, strict=True)])
