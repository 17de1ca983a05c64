"""First-order change of the weight W_mn by a step d of the trained tensors: J d, with J the Jacobian dW/d(tensors).

The same rule holds for every method. With G = dL/dW, the gradients of the trained tensors are J^T G (autograd computes
them), the method turns these into a direction d (`before_step`), and W changes to first order by -eta J d, with eta the
learning rate of plain gradient descent. Closed forms that follow, which the tests compare with this module:

    LoRA          J J^T G = s^2 (B B^T G + G A^T A)
    SDS-LoRA      s^2 (P_B G + G P_A)
    LoRA-Pro      G - (I - P_B) G (I - P_A)
    LoRA-XS, -SB  s^2 B B^T G A^T A

For DoRA, J includes the derivative of the row norm; its gradients treat that norm as constant, as its training does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

if TYPE_CHECKING:
    from sdsbench.methods.layer import AdaptedLinear

Tensors = Mapping[str, Tensor]


class _Update(nn.Module):
    """method.delta as a function of the layer's parameters."""

    def __init__(self, layer: AdaptedLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        return self.layer.method.delta(self.layer)


def first_order_change(layer: AdaptedLinear, at: Tensors, direction: Tensors) -> Tensor:
    """J d (m x n): derivative of W at the parameter values `at` along `direction`, by forward-mode differentiation."""
    update = _Update(layer)

    def weight(tensors: dict[str, Tensor]) -> Tensor:
        return functional_call(update, {f"layer.{name}": tensor for name, tensor in tensors.items()})

    return jvp(weight, (dict(at),), ({name: direction[name] for name in at},))[1]


def change_between(layer: AdaptedLinear, old: Tensors, new: Tensors) -> Tensor:
    """W(new) - W(old), m x n, without cancellation error: J (new - old), with J at the midpoint.

    Exact for methods whose W is quadratic in the parameters: all but DoRA, whose error is of third order in the step.
    """
    middle = {name: torch.lerp(old[name], new[name], 0.5) for name in old}
    return first_order_change(layer, middle, {name: new[name] - old[name] for name in old})


def method_direction(layer: AdaptedLinear, gradients: Tensors, moments: Tensors, step: int) -> dict[str, Tensor]:
    """The direction that the method's `before_step` computes from raw gradients J^T G; the layer stays unchanged.

    `moments` is the method's training state on the layer from before this step. The real step has already added its own
    gradient to the layer's, and a direction computed from those would count the step twice.

    The direction is in units of train.lr: it is multiplied by the tensor's `learning_rate_factor` (as in LoRA+).
    """
    parameters = dict(layer.named_parameters())
    kept = {name: parameters[name].grad for name in gradients}
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    try:
        for name, moment in moments.items():
            layer.get_buffer(name).copy_(moment)
        for name, gradient in gradients.items():
            parameters[name].grad = gradient.clone()
        layer.method.before_step({layer.name: layer}, step, lr=0.0)  # as lr -> 0
        factors = {name: layer.method.learning_rate_factor(name, parameters[name].ndim) for name in gradients}
        return {name: factor * parameters[name].grad for name, factor in factors.items()}  # type: ignore[operator, misc]
    finally:
        for name, gradient_or_none in kept.items():
            parameters[name].grad = gradient_or_none
        for name, buffer in layer.named_buffers():
            buffer.copy_(buffers[name])
