"""Gradients dL/dW_mn of frozen target weights, one layer at a time, for LoRA-SB's start and for probes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from sdsbench.methods.masters import master_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.base import Layers


def summed_gradients(
    layers: Layers, run_backward: Callable[[], None], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Per layer the sum of dL/dW_mn over all backward passes that `run_backward` does, in main memory.

    Gradients are summed in fp32 (fp64 if the base is fp64), or in `dtype`; then each one is rounded to it first.

    Each layer's gradient exists on the device only inside that layer's backward step, so device memory beyond an
    ordinary backward pass is one m x n matrix, however deep the model is. Gradients of the adapters' parameters
    are zeroed afterwards (those of other parameters, such as a classifier head, are the caller's).
    """
    totals = {
        name: torch.zeros(layer.shape, dtype=dtype or master_dtype(layer.weight.dtype))
        for name, layer in layers.items()
    }

    def add(name: str, gradient_mn: Tensor) -> None:
        totals[name].add_(gradient_mn.to("cpu", totals[name].dtype))

    for name, layer in layers.items():
        layer.gradient_sink = partial(add, name)
    try:
        run_backward()
    finally:
        for layer in layers.values():
            layer.gradient_sink = None
            for parameter in layer.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
    return totals
