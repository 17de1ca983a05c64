"""Which model is scored: folded only where folding keeps the update."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdsbench.methods import base as methods
from sdsbench.methods.attach import adapted_layers, attach
from sdsbench.methods.export import merge_drift
from sdsbench.runs.evaluate import evaluation_model
from sdsbench.training.precision import Device

BOUND = 0.01  # of the update's norm


def adapted(dtype: torch.dtype, change: float) -> tuple[nn.Module, dict]:
    """A model of one layer whose weight LoRA changes by the share `change` of its norm."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48, bias=False))
    model[0].weight.data = torch.randn(48, 64, generator=generator).to(dtype)
    method = methods.build(methods.lookup("lora")[1](name="lora", rank=4, alpha=4.0))
    layers = attach(model, method, 0)
    (layer,) = layers.values()
    with torch.no_grad():
        layer.B.copy_(torch.randn(48, 4, generator=generator))
        layer.B.mul_(change * layer.weight.float().norm() / (layer.B @ layer.A).norm())
    return model, layers


def place(device: str, dtype: torch.dtype) -> Device:
    return Device(torch.device(device), "", dtype, "", 1)


@pytest.mark.parametrize(
    ("device", "dtype", "folded"),
    [("cpu", torch.float32, True), ("cpu", torch.bfloat16, True), ("cuda", torch.float32, True),
     ("cuda", torch.bfloat16, False)],
)  # fmt: skip
def test_folds_in_fp32_alone(device: str, dtype: torch.dtype, folded: bool) -> None:
    model, _ = adapted(dtype, 0.01)
    scored = evaluation_model(model, place(device, dtype))
    assert (not adapted_layers(scored)) == folded
    assert adapted_layers(model), "the model that trains keeps its adapters"
    if folded:
        assert {parameter.dtype for parameter in scored.parameters()} == {torch.float32}


@pytest.mark.parametrize("change", [1e-3, 1e-2, 0.1])
def test_why_the_bound_means_fp32(change: float) -> None:
    """Updates of a thousandth to a tenth of the weight's norm, as training makes: fp32 keeps them, bf16 does not."""
    model, layers = adapted(torch.float32, change)
    (layer,) = layers.values()
    exact = layer.weight.double() + layer.B.double() @ layer.A.double()
    folded = evaluation_model(model, place("cpu", torch.float32))[0].weight
    assert (folded - exact).norm() / (exact - layer.weight).norm() < BOUND / 100
    assert merge_drift(layers, torch.bfloat16)["drift_max"] > BOUND
