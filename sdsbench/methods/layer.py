"""The adapted layer: y = W0 x + s * sum_i up_i down_i x, as one autograd node.

The layer applies and differentiates any sum of low-rank products. The method (methods/base.py) decides which products
these are and which of their factors train.

The node saves for the backward pass: the input x in its own dtype and the factors that the product used (the parameters
themselves, or copies if they had to be concatenated or cast). To save memory, x down^T is computed again in the
backward pass (r / m of the work of the base product), dropout masks are drawn again from a stored seed, and no
activation is copied to fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sdsbench.methods.dropout_masks import DropoutMasks, keep_mask
from sdsbench.methods.masters import as_master, master_dtype

if TYPE_CHECKING:
    from sdsbench.methods.base import Branch, Method, RowScale

_BASE = ("weight", "bias")
UNSCALED = (None, None)  # no rescaling of rows: stands for (magnitude_m, norm_m)
GradientSink = Callable[[Tensor], None]


class AdaptedLinear(nn.Module):
    """An nn.Linear with a frozen weight_mn and a low-rank update.

    The method's tensors are registered here by `method.create`: parameters and buffers in fp32, whatever the
    dtype of the base. They are cast to the dtype of x inside the product.
    """

    def __init__(self, linear: nn.Linear, method: Method, name: str) -> None:
        super().__init__()
        self.name = name
        self.method = method
        self.in_features, self.out_features = linear.in_features, linear.out_features
        linear.requires_grad_(False)
        self.weight, self.bias = linear.weight, linear.bias
        self.dropout_masks: DropoutMasks | None = None
        """Position of the current pass within its step; the run must set this if method.dropout is above 0."""
        self.gradient_sink: GradientSink | None = None
        """If set, the backward pass calls it with dL/dW_mn in fp32 and keeps no reference to the tensor."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): output size, input size."""
        return self.out_features, self.in_features

    def add_parameter(self, name: str, tensor: Tensor) -> None:
        """Register a trainable tensor, in fp32, on the layer's device."""
        self.register_parameter(name, nn.Parameter(self._as_own(tensor)))

    def add_buffer(self, name: str, tensor: Tensor) -> None:
        """Register a constant tensor, in fp32, on the layer's device; it is saved with the adapter."""
        self.register_buffer(name, self._as_own(tensor))

    def add_training_state(self, name: str, tensor: Tensor) -> None:
        """Register a tensor that only training needs (kept in checkpoints, left out of saved adapters)."""
        self.register_buffer(name, tensor.to(device=self.weight.device), persistent=False)

    def _as_own(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.weight.device, dtype=master_dtype(self.weight.dtype))

    def method_tensors(self, training_state: bool = False) -> dict[str, Tensor]:
        """The method's parameters and constant buffers by name; with `training_state` also the tensors that only
        training needs."""
        tensors: dict[str, Tensor] = {name: tensor for name, tensor in self.named_parameters() if name not in _BASE}
        for name, tensor in self.named_buffers():
            if training_state or name not in self._non_persistent_buffers_set:
                tensors[name] = tensor
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def forward(self, x: Tensor) -> Tensor:
        x_tn = x.reshape(-1, self.in_features)
        return self.method.forward(self, x_tn).view(*x.shape[:-1], self.out_features)

    def low_rank_forward(
        self,
        x_tn: Tensor,
        branches: Sequence[Branch],
        scale: float,
        rows: RowScale | None = None,
        drops_base: bool = False,
    ) -> Tensor:
        """y_tm = magnitude / norm * (x W0^T + scale * sum_i dropout(x) down_i^T up_i^T) + bias.

        `rows` is (magnitude_m, norm_m); None means factor 1. Dropout applies to the input of the update only. With
        `drops_base`, which needs `rows`, the rescaled base product is dropout(x) W0^T, and (x - dropout(x)) W0^T is
        added without rescaling.
        """
        call = self.call(scale, len(x_tn), self.gradient_sink, drops_base)
        blocks = [block for branch in branches for block in branch]
        return _LowRankLinear.apply(x_tn, self.weight, self.bias, *(rows or UNSCALED), call, *blocks)

    def call(self, scale: float, rows: int, sink: GradientSink | None, drops_base: bool = False) -> Call:
        """The non-tensor arguments of a product with `rows` input rows, including the dropout mask's seed and first
        row.

        Raises RuntimeError if dropout applies and `dropout_masks` is not set."""
        dropout = self.method.config.dropout if self.training else 0.0
        if not dropout:
            return Call(scale, 0.0, 0, 0, sink)
        if self.dropout_masks is None:
            raise RuntimeError(f"{self.name}: dropout needs layer.dropout_masks (methods/dropout_masks.py)")
        return Call(scale, dropout, *self.dropout_masks.of_layer(self.name, rows), sink, drops_base)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.method.name}"


@dataclass(frozen=True)
class Call:
    """The arguments of one product that are not tensors."""

    scale: float
    dropout: float
    seed: int
    first_row: int  # of the mask
    sink: GradientSink | None
    drops_base: bool = False  # whether the rescaled base product also uses dropout(x)

    def dropped(self, x_tn: Tensor) -> Tensor:
        """dropout(x); every call uses the same mask, drawn from the stored seed."""
        if not self.dropout:
            return x_tn
        mask_tn = keep_mask(x_tn, 1 - self.dropout, self.seed, self.first_row)
        return mask_tn.mul_(x_tn).div_(1 - self.dropout)

    def dropout_backward(self, gradient_tn: Tensor) -> Tensor:
        """Backward of `dropped`: multiplies the gradient by the same mask and factor."""
        return self.dropped(gradient_tn)


def joined(blocks: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(up_mK, down_Kn): the factors of all branches side by side, in the dtype of the product."""
    if len(blocks) == 2:
        return blocks[0].to(dtype), blocks[1].to(dtype)
    ups, downs = ([block.to(dtype) for block in blocks[side::2]] for side in (0, 1))
    return torch.cat(ups, 1), torch.cat(downs, 0)


def scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale * (left @ right), as one kernel."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


def _product_fp32(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in fp32; on CUDA the fp32 accumulator is returned without rounding to bf16."""
    if left.device.type != "cpu" and left.dtype != master_dtype(left.dtype):
        return torch.mm(left, right, out_dtype=torch.float32)
    return as_master(left @ right)


class _LowRankLinear(torch.autograd.Function):
    """Base product and all branches as one autograd node; the factors are concatenated into one product of rank K = sum
    k_i."""

    @staticmethod
    def forward(
        ctx: Any,
        x_tn: Tensor,
        weight_mn: Tensor,
        bias_m: Tensor | None,
        magnitude_m: Tensor | None,
        norm_m: Tensor | None,
        call: Call,
        *blocks: Tensor,
    ) -> Tensor:
        up_mK, down_Kn = joined(blocks, x_tn.dtype)
        dropped_tn = call.dropped(x_tn)
        h_Kt = down_Kn @ dropped_tn.t()
        if magnitude_m is None or norm_m is None:
            y_tm = nn.functional.linear(x_tn, weight_mn, bias_m)
            y_tm.addmm_(h_Kt.t(), up_mK.t(), alpha=call.scale)
            scaled_tm = None
        else:
            scaled_tm = (dropped_tn if call.drops_base else x_tn) @ weight_mn.t()
            scaled_tm.addmm_(h_Kt.t(), up_mK.t(), alpha=call.scale)
            rescaled(scaled_tm, magnitude_m, norm_m, out=scaled_tm)
            y_tm = scaled_tm if bias_m is None else scaled_tm + bias_m
            if call.drops_base:
                y_tm = torch.addmm(y_tm, x_tn - dropped_tn, weight_mn.t())
        ctx.save_for_backward(x_tn, weight_mn, magnitude_m, norm_m, scaled_tm, up_mK, down_Kn)
        ctx.call, ctx.widths = call, widths_of(blocks)
        return y_tm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_tm: Tensor) -> tuple[Tensor | None, ...]:
        x_tn, weight_mn, magnitude_m, norm_m, scaled_tm, up_mK, down_Kn = ctx.saved_tensors
        call: Call = ctx.call
        needs_x, _, _, needs_magnitude, _, _, *needs_block = ctx.needs_input_grad
        if call.sink is not None:
            call.sink(as_master(g_tm.t()) @ as_master(x_tn))
        magnitude_gradient_m, output_tm = None, g_tm
        if scaled_tm is not None:
            if needs_magnitude:
                magnitude_gradient_m = magnitude_gradient(g_tm, scaled_tm, magnitude_m)
            g_tm = rescaled(g_tm, magnitude_m, norm_m)
        u_Kt = scaled_product(up_mK.t(), g_tm.t(), call.scale)  # dL/dh
        gradients = block_gradients(call, g_tm, x_tn, u_Kt, down_Kn, ctx.widths, needs_block)
        dx_tn = None
        if needs_x and call.drops_base:
            through_tn = torch.addmm(u_Kt.t() @ down_Kn, g_tm - output_tm, weight_mn)
            dx_tn = torch.addmm(call.dropout_backward(through_tn), output_tm, weight_mn)
        elif needs_x:
            dx_tn = g_tm @ weight_mn
            if call.dropout:
                dx_tn.add_(call.dropout_backward(u_Kt.t() @ down_Kn))
            else:
                dx_tn.addmm_(u_Kt.t(), down_Kn)
        return dx_tn, None, None, magnitude_gradient_m, None, None, *gradients


def rescaled(rows_tm: Tensor, magnitude_m: Tensor, norm_m: Tensor, out: Tensor | None = None) -> Tensor:
    """rows * magnitude / norm, by adding (magnitude / norm - 1) * rows to the rows.

    The factor is close to 1, where bf16 has steps of 0.8 %: it would be off by up to 0.4 %, for all rows alike, and
    smaller changes of a magnitude had no effect. Its distance from 1 is rounded by 0.4 % of itself only.
    """
    return torch.addcmul(rows_tm, rows_tm, (magnitude_m / norm_m - 1).to(rows_tm.dtype), out=out)


def magnitude_gradient(g_tm: Tensor, scaled_tm: Tensor, magnitude_m: Tensor) -> Tensor:
    """dL/dmagnitude = sum_t g * y0 / norm, with y0 / norm = scaled / magnitude.

    Uses the scaled output, since the next layer often keeps it anyway and the unscaled one would need extra memory. If
    a magnitude is 0 (a zero row in the base and no update), y0 and hence the gradient are 0.
    """
    sums_m = (g_tm * scaled_tm).sum(0, dtype=master_dtype(g_tm.dtype))
    return sums_m.div_(torch.where(magnitude_m == 0, torch.inf, magnitude_m))


def widths_of(blocks: Sequence[Tensor]) -> list[int]:
    """The rank of each branch."""
    return [down_kn.shape[0] for down_kn in blocks[1::2]]


def block_gradients(
    call: Call,
    g_tm: Tensor,
    x_tn: Tensor,
    u_Kt: Tensor,
    down_Kn: Tensor,
    widths: Sequence[int],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """fp32 gradients in the order up_1, down_1, up_2, ...: d up = s g^T (x down^T), d down = (s g up)^T x.

    Thin products are stored as r x t: on a CPU they are up to four times faster to compute and use than t x r.
    """
    dropped_tn = call.dropped(x_tn)
    gradients: list[Tensor | None] = []
    branches = zip(u_Kt.split(widths), down_Kn.split(widths), strict=True) if len(widths) > 1 else [(u_Kt, down_Kn)]
    for index, (u_kt, down_kn) in enumerate(branches):
        up_gradient = down_gradient = None
        if needed[2 * index]:
            h_kt = scaled_product(down_kn, dropped_tn.t(), call.scale)
            up_gradient = _product_fp32(h_kt, g_tm).t()
        if needed[2 * index + 1]:
            down_gradient = _product_fp32(u_kt, dropped_tn)
        gradients += [up_gradient, down_gradient]
    return gradients
