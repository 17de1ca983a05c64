"""A step as on CUDA, traced without a GPU: no operator may meet tensors of main memory beside those of the device.

The step computes shapes on meta tensors by the kernels that CUDA would take (training/meta_device.py): forward and
backward passes and the update. torch's FakeTensorMode cannot do so here: autograd ends the process where a tensor
claims to be on CUDA in a build without it.
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
from tests.runs.test_memory import BATCH, FACTS, METHODS, configured

aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class OneDevice(TorchDispatchMode):
    """Raises where CUDA would: tensors of two devices in one operator. Single values may come from main memory, and so
    may the places that an indexing operator reads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []  # also where somebody catches the error and computes another way

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        looked_at = (args[0], args[2:]) if function in INDEXED else (args, kwargs)
        tensors = [leaf for leaf in tree_leaves(looked_at) if isinstance(leaf, Tensor) and leaf.ndim]
        if function not in COPIES and len({tensor.device.type for tensor in tensors}) > 1:
            places = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
            self.found.append(f"{function}: {places}")
            raise AssertionError(self.found[-1])
        return function(*args, **(kwargs or {}))


def trace(config: Any, kind: str) -> None:
    facts = {"model_type": kind, **FACTS[kind]}
    with as_on_cuda(), OneDevice() as mode:
        model = load.without_weights(config.model.family, facts, torch.bfloat16, memory.labels_of(config), 2)
        step = step_memory.step_of(*memory.assembled(config, model.train(), BATCH))
        step.passes()
        step.update()
    assert not mode.found


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_stays_on_its_device(method: str, kind: str, tmp_path: Path) -> None:
    dropout = [] if method in ("full_ft", "peft") else ["method.dropout=0.1"]
    trace(configured(tmp_path, kind, method, *dropout), kind)


class Stray(nn.Module):
    """Makes a tensor in main memory at every forward pass, as code that was only ever run on a CPU does."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(x.shape[-1])


@pytest.mark.parametrize(
    "operator",
    [
        Stray(),
        lambda x: functional.linear(x, torch.ones(3, 8, dtype=x.dtype)),
        lambda x: torch.where(torch.ones(4, 8) > 0, x, x),
        lambda x: torch.cat([x, torch.ones(4, 8)]),
        lambda x: x.masked_fill(torch.ones(4, 8, dtype=torch.bool), 0.0),
    ],
)
def test_a_tensor_in_main_memory_is_found(operator: Any) -> None:
    x = torch.ones(4, 8, device="meta")
    with as_on_cuda(), OneDevice(), pytest.raises(AssertionError, match=r"on meta.* on cpu|on cpu.* on meta"):
        operator(x)


def test_what_cuda_takes_is_taken() -> None:
    x = torch.ones(4, 8, device="meta")
    with as_on_cuda(), OneDevice():
        assert (x * torch.tensor(2.0)).is_meta
        assert x[torch.tensor([0, 1])].shape == (2, 8)
        assert torch.ones(3).to("meta").is_meta and not x.cpu().is_meta


def test_a_module_inside_a_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace reaches what a model's blocks do."""
    usual = load.without_weights

    def with_stray(*args: Any) -> nn.Module:
        model = usual(*args)
        model.model.norm = nn.Sequential(model.model.norm, Stray())
        return model

    monkeypatch.setattr(load, "without_weights", with_stray)
    with pytest.raises(AssertionError, match=r"aten\.mul.* on cpu"):
        trace(configured(tmp_path, "mistral", "lora"), "mistral")
