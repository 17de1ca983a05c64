"""A training step as on CUDA, traced without a GPU: no operator may mix tensors of main memory and of the device.

The step computes shapes on meta tensors with the kernels that CUDA would use (training/meta_device.py): forward and
backward passes and the update. torch's FakeTensorMode cannot be used here: in a build without CUDA, autograd ends the
process where a tensor claims to be on CUDA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdsbench.models import load
from sdsbench.runs import memory
from sdsbench.training import step_memory
from sdsbench.training.meta_device import as_on_cuda
from tests.runs.test_memory import BATCH, FACTS, METHODS, small_config

aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class OneDevice(TorchDispatchMode):
    """Raises where CUDA would: tensors of two devices in one operator. Single values may come from main memory, and so
    may the indices of an indexing operator."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []  # kept even if the traced code catches the error

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        checked = (args[0], args[2:]) if function in INDEXED else (args, kwargs)
        tensors = [leaf for leaf in tree_leaves(checked) if isinstance(leaf, Tensor) and leaf.ndim]
        if function not in COPIES and len({tensor.device.type for tensor in tensors}) > 1:
            places = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
            self.found.append(f"{function}: {places}")
            raise AssertionError(self.found[-1])
        return function(*args, **(kwargs or {}))


def trace(config: Any, kind: str) -> None:
    """Run one step on meta tensors and assert that no operator mixed devices."""
    facts = {"model_type": kind, **FACTS[kind]}
    with as_on_cuda(), OneDevice() as mode:
        model = load.without_weights(config.model.family, facts, torch.bfloat16, memory.labels_of(config), 2)
        step = step_memory.step_of(*memory.assembled(config, model.train(), BATCH))
        step.passes()
        step.update()
    assert not mode.found


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("method", METHODS)
def test_step_of_every_method_stays_on_its_device(method: str, kind: str, tmp_path: Path) -> None:
    dropout = [] if method in ("full_ft", "peft") else ["method.dropout=0.1"]
    trace(small_config(tmp_path, kind, method, *dropout), kind)


class ModuleWithCpuTensor(nn.Module):
    """Creates a tensor in main memory at every forward pass, as code tested only on a CPU may do."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(x.shape[-1])


@pytest.mark.parametrize(
    "operator",
    [
        ModuleWithCpuTensor(),
        lambda x: functional.linear(x, torch.ones(3, 8, dtype=x.dtype)),
        lambda x: torch.where(torch.ones(4, 8) > 0, x, x),
        lambda x: torch.cat([x, torch.ones(4, 8)]),
        lambda x: x.masked_fill(torch.ones(4, 8, dtype=torch.bool), 0.0),
    ],
)
def test_operator_with_a_tensor_in_main_memory_is_found(operator: Any) -> None:
    x = torch.ones(4, 8, device="meta")
    with as_on_cuda(), OneDevice(), pytest.raises(AssertionError, match=r"on meta.* on cpu|on cpu.* on meta"):
        operator(x)


def test_mixed_operators_that_cuda_accepts_are_accepted() -> None:
    x = torch.ones(4, 8, device="meta")
    with as_on_cuda(), OneDevice():
        assert (x * torch.tensor(2.0)).is_meta
        assert x[torch.tensor([0, 1])].shape == (2, 8)
        assert torch.ones(3).to("meta").is_meta and not x.cpu().is_meta


def test_cpu_tensor_inside_a_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace covers the modules inside a model."""
    usual = load.without_weights

    def with_stray(*args: Any) -> nn.Module:
        model = usual(*args)
        model.model.norm = nn.Sequential(model.model.norm, ModuleWithCpuTensor())
        return model

    monkeypatch.setattr(load, "without_weights", with_stray)
    with pytest.raises(AssertionError, match=r"aten\.mul.* on cpu"):
        trace(small_config(tmp_path, "mistral", "lora"), "mistral")
