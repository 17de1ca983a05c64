"""Meta tensors as stand-ins for tensors on a GPU, and the memory of 8-bit moments."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sdsbench.training import in_backward
from sdsbench.training.meta_device import as_on_cuda
from sdsbench.training.optimizer import Group
from sdsbench.training.parameters import optimizer_of
from sdsbench.training.saved_bytes import PeakBytes
from sdsbench.training.step_memory import InBackwardMemory
from sdsbench.training.training_config import TrainConfig


def test_values_and_copies_of_meta_tensors_are_defined() -> None:
    """In the context, values read as 1, and a copy in main memory has the shape but almost no memory."""
    before = functional.dropout, functional.scaled_dot_product_attention
    x = torch.ones(1000, 8, device="meta")
    with as_on_cuda():
        assert (x.sum().item(), bool(x.sum() > 2), x.sum(0).tolist()) == (1.0, True, [0.0] * 8)
        copy = x.cpu()
        assert (copy.shape, copy.device.type, copy.untyped_storage().nbytes()) == (x.shape, "cpu", 4)
        with PeakBytes("meta") as live:
            assert copy.to("meta").shape == x.shape
        assert live.peak == 32000
    with pytest.raises(RuntimeError):
        x.sum().item()
    assert (functional.dropout, functional.scaled_dot_product_attention) == before


def test_cached_results_have_types_shapes_and_strides_of_torch() -> None:
    """This holds for the first call and for cached results; in-place operations return the same tensor."""
    x, y = torch.ones(4, 6, device="meta").t(), torch.ones(6, 1, device="meta", dtype=torch.bfloat16)
    expected = (x + y, (x @ x.t()) * 2, x.to(torch.bfloat16), x > 1)
    with as_on_cuda():
        for _ in range(2):
            found = (x + y, (x @ x.t()) * 2, x.to(torch.bfloat16), x > 1)
            for one, other in zip(found, expected, strict=True):
                assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
            assert x.mul_(2).data_ptr() == x.data_ptr() and x.add_(1) is x
        with pytest.raises(RuntimeError):
            x + torch.ones(5, 5, device="meta")


@pytest.mark.parametrize("heads", [2, 4])
def test_attention_keeps_scores_only_where_cuda_would(heads: int) -> None:
    """In fp32, CUDA has no kernel for grouped queries; in 16 bits, or without grouping, no scores are kept."""
    sizes = {}
    for dtype in (torch.float32, torch.bfloat16):
        q, k = (torch.ones(1, h, 512, 16, device="meta", dtype=dtype) for h in (4, heads))
        with as_on_cuda(), PeakBytes("meta") as live:
            functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=heads != 4)
        sizes[dtype] = live.peak
    scores = 4 * 512 * 512
    assert (sizes[torch.float32] > 4 * scores) == (heads == 2)
    assert sizes[torch.bfloat16] < scores


def test_tied_embedding_has_two_gradients_at_once() -> None:
    """As with real tensors, the second gradient is added to the first in place."""
    weight = torch.nn.Parameter(torch.ones(1000, 8, device="meta"))
    with as_on_cuda(), PeakBytes("meta") as live:
        h = functional.embedding(torch.zeros(2, dtype=torch.long, device="meta"), weight)
        (h @ weight.t()).sum().backward()
    assert 2 * 32000 < live.peak < 3 * 32000


def test_dropout_keeps_one_byte_per_value() -> None:
    x = torch.ones(1000, device="meta", requires_grad=True)
    with as_on_cuda(), PeakBytes("meta") as live:
        y = torch.nn.Dropout(0.1)(x)
        assert live.now == 5000
        y.sum().backward()


def test_bytes_of_8_bit_moments_equal_torchaos() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: make test-full-ft")
    weights = [torch.nn.Parameter(torch.ones(n, dtype=torch.bfloat16)) for n in (2**14, 100, 5000, 4096 * 3)]
    config = TrainConfig(lr=1e-3, optimizer="adamw8bit")
    optimizer = optimizer_of([Group("weights", weights, 1e-3, 0.0, "adamw8bit")], config, 0)
    assert isinstance(optimizer, in_backward.InBackwardAdamW)

    def backward(scale: float) -> float:
        sum(weight.sum() for weight in weights).backward()  # type: ignore[union-attr]
        return 0.0

    optimizer.step(backward, 1, 1.0, None)
    held = {name: t.numel() * t.element_size() for name, t in optimizer.tensors().items() if name[-5:] != ".step"}
    plain = {f"weight.{t.number}" for t in optimizer.trained if not t.has_master}
    assert plain < held.keys()
    stand_in = InBackwardMemory([Group("weights", weights, 1e-3, 0.0, "adamw8bit")])
    assert sum(t.numel() for t in stand_in.held) == sum(size for name, size in held.items() if name not in plain)


def test_temporary_bytes_of_an_8_bit_update() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: make test-full-ft")
    values = torch.nn.Parameter(torch.ones(2**18, dtype=torch.bfloat16))
    config = TrainConfig(lr=1e-3, optimizer="adamw8bit")
    optimizer = in_backward.InBackwardAdamW([Group("weights", [values], 1e-3, 0.0, "adamw8bit")], config, 0)
    (trained,) = optimizer.trained
    for _ in range(2):  # the first update creates the moments
        values.grad = torch.ones_like(values)
        with optimizer._rounding(1, trained), PeakBytes() as peak:
            trained.update(1e-3)
    assert peak.peak == pytest.approx(in_backward.UPDATE_BYTES * values.numel(), rel=0.01)
