"""Convert GPT-2's Conv1D layers: transformers' Conv1D is a linear layer that stores its weight transposed.

Methods adapt torch's nn.Linear. So every Conv1D is replaced by an equivalent nn.Linear when a model is loaded, and
converted back when it is saved as a plain model, so that its files have the hub's layout. Adapters are the same for
both: lora_A is r x inputs, lora_B outputs x r.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers.pytorch_utils import Conv1D


def with_linear_(model: Any) -> Any:
    """Put an nn.Linear with weight_mn = W_nm^T in place of every Conv1D (y = x W_nm + b); returns the model."""
    for name, layer in _of_kind(model).items():
        linear = nn.Linear(layer.nx, layer.nf, device="meta")
        linear.weight, linear.bias = _transposed(layer.weight), layer.bias
        model.set_submodule(name, linear.train(layer.training))
    return model


def with_conv1d_(model: Any) -> Any:
    """Undo `with_linear_`: put a Conv1D in place of every nn.Linear that is a Conv1D in transformers' model."""
    original = as_transformers_builds_it(model)
    for name, layer in _of_kind(original).items():
        linear = model.get_submodule(name)
        layer.weight, layer.bias = _transposed(linear.weight), linear.bias
        model.set_submodule(name, layer.train(linear.training))
    return model


def as_transformers_builds_it(model: Any) -> Any:
    """A model of the same configuration on the meta device, with its Conv1D layers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return type(model)(model.config)


def has_conv1d(model: Any) -> bool:
    return bool(_of_kind(model))


def _of_kind(model: Any) -> dict[str, Conv1D]:
    from transformers.pytorch_utils import Conv1D  # here, so that `status` does not wait for transformers

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Conv1D)}


def _transposed(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().t().contiguous(), requires_grad=weight.requires_grad)
