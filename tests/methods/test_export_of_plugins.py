"""Saved adapters of methods with modules inside of layers, and methods that train nothing or wrap no layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdsbench.core.errors import ConfigError, DamagedFile
from sdsbench.methods.attach import attach
from sdsbench.methods.base import LowRankConfig, Method, MethodConfig, build, register
from sdsbench.methods.export import load_adapter, merge_drift, save_adapter
from sdsbench.methods.tensor_file import save_tensors
from sdsbench.training.probes.layers import probed_layers
from tests.methods.tiny import logits, tiny_batch, tiny_model


@register("toy_router", LowRankConfig)
class Router(Method):
    """A method whose trained tensors are in a module of the layer, so that their names have dots."""

    def create(self, layer: Any, generator: torch.Generator) -> None:
        m, n = layer.shape
        layer.router = nn.ParameterDict({"up": torch.zeros(m, 2), "down": torch.randn(2, n, generator=generator)})

    def branches(self, layer: Any) -> list[tuple[Tensor, Tensor]]:
        return [(layer.router["up"], layer.router["down"])]


def model_with_router(seed: int) -> tuple[nn.Module, dict, Method]:
    model, method = tiny_model("decoder"), build(LowRankConfig(name="toy_router", rank=2))
    return model, attach(model, method, seed), method


def test_tensors_with_dots_in_their_names_are_saved_and_loaded(tmp_path: Path) -> None:
    model, layers, method = model_with_router(0)
    with torch.no_grad():
        for layer in layers.values():
            layer.router["up"].fill_(0.1)
    save_adapter(tmp_path, layers, method)
    loaded_model, loaded_layers, loaded_method = model_with_router(1)
    assert load_adapter(tmp_path, loaded_layers, loaded_method) == {}
    assert torch.equal(logits(loaded_model, tiny_batch("decoder")), logits(model, tiny_batch("decoder")))


def test_unknown_tensor_in_a_file_is_refused(tmp_path: Path) -> None:
    _, layers, method = model_with_router(0)
    save_adapter(tmp_path, layers, method)
    path = tmp_path / "adapter.safetensors"
    name = next(iter(layers))
    save_file(load_file(path) | {f"{name}.router.more": torch.zeros(3)}, path)
    with pytest.raises(DamagedFile, match=r"router\.more"):
        load_adapter(tmp_path, layers, method)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    save_tensors(tmp_path / "a.safetensors", {"whole": shared, "part": shared[:3], "again": shared})
    found = load_file(tmp_path / "a.safetensors")
    assert found["part"].tolist() == [0, 1, 2] and found["again"].tolist() == found["whole"].tolist()


def test_merge_drift_without_layers_is_empty() -> None:
    assert merge_drift({}, torch.bfloat16) == {}


@register("toy_idle", MethodConfig)
class Idle(Method):
    """Wraps no layers, and trains norms if the targets are q_proj, else nothing."""

    def wraps_layers(self) -> bool:
        return False

    def unfreeze(self, model: nn.Module, targets: Any, seed: int) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.config.targets == ["q_proj"] and "norm" in name)


def test_methods_without_trained_tensors_and_probes_without_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="trains something"):
        attach(tiny_model("decoder"), build(MethodConfig(name="toy_idle")), 0)
    model, method = tiny_model("decoder"), build(MethodConfig(name="toy_idle", targets=["q_proj"]))
    layers = attach(model, method, 0)
    with pytest.raises(ConfigError, match=r"probe\.every"):
        probed_layers(model, layers, method)
