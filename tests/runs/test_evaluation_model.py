"""The model that is evaluated: adapters are merged into the weights only where the merge keeps the update."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdsbench.methods import base as methods
from sdsbench.methods.attach import adapted_layers, attach
from sdsbench.methods.export import merge_drift
from sdsbench.runs.evaluate import evaluation_model
from sdsbench.training.precision import Device

BOUND = 0.01  # accepted merge error, as a share of the update's norm


def adapted_model(dtype: torch.dtype, change: float) -> tuple[nn.Module, dict]:
    """A one-layer model whose LoRA update has the share `change` of the weight's norm, and its adapted layers."""
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


def device_of(device: str, dtype: torch.dtype) -> Device:
    return Device(torch.device(device), "", dtype, "", 1)


@pytest.mark.parametrize(
    ("device", "dtype", "merged"),
    [("cpu", torch.float32, True), ("cpu", torch.bfloat16, True), ("cuda", torch.float32, True),
     ("cuda", torch.bfloat16, False)],
)  # fmt: skip
def test_adapters_are_merged_except_for_bfloat16_on_cuda(device: str, dtype: torch.dtype, merged: bool) -> None:
    model, _ = adapted_model(dtype, 0.01)
    scored = evaluation_model(model, device_of(device, dtype))
    assert (not adapted_layers(scored)) == merged
    assert adapted_layers(model), "the trained model keeps its adapters"
    if merged:
        assert {parameter.dtype for parameter in scored.parameters()} == {torch.float32}


@pytest.mark.parametrize("change", [1e-3, 1e-2, 0.1])
def test_merge_error_is_below_the_bound_in_fp32_and_above_it_in_bf16(change: float) -> None:
    """With updates of a thousandth to a tenth of the weight's norm, as in training, only fp32 keeps the update."""
    model, layers = adapted_model(torch.float32, change)
    (layer,) = layers.values()
    exact = layer.weight.double() + layer.B.double() @ layer.A.double()
    merged = evaluation_model(model, device_of("cpu", torch.float32))[0].weight
    assert (merged - exact).norm() / (exact - layer.weight).norm() < BOUND / 100
    assert merge_drift(layers, torch.bfloat16)["drift_max"] > BOUND
