"""Summed dense gradients: equal to autograd's, with memory that does not grow with depth."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from sdsbench.methods.attach import attach
from sdsbench.methods.gradients import summed_gradients
from tests.methods.tiny import make_method, tiny_batch, tiny_model


def test_summed_gradients_equal_autograd_over_several_batches() -> None:
    batches = [tiny_batch("decoder", seed=seed) for seed in range(3)]
    reference = tiny_model("decoder")
    for batch in batches:
        reference(**batch).loss.backward()
    model = tiny_model("decoder")
    layers = attach(model, make_method("lora_sb"), 0)
    sums = summed_gradients(layers, lambda: [model(**batch).loss.backward() for batch in batches] and None)
    for name, total in sums.items():
        torch.testing.assert_close(total, reference.get_submodule(name).weight.grad, rtol=1e-4, atol=1e-6)
        assert total.dtype == torch.float32 and total.device.type == "cpu"
    assert all(layer.gradient_sink is None and layer.R.grad.abs().max() == 0 for layer in layers.values())


def test_gradient_sinks_are_removed_after_an_error() -> None:
    layers = attach(tiny_model("decoder"), make_method("lora_sb"), 0)
    with pytest.raises(RuntimeError, match="no data"):
        summed_gradients(layers, lambda: (_ for _ in ()).throw(RuntimeError("no data")))
    assert all(layer.gradient_sink is None for layer in layers.values())


def _peak_bytes(work: Callable[[], None]) -> int:
    """Peak of the bytes of main memory that torch allocates inside `work`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert events
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def _peak_bytes_of_backward(depth: int, with_gradients: bool) -> int:
    """Peak bytes of one backward pass over two tokens; buffers for sums are allocated before it."""
    model = tiny_model("decoder", layers=depth)
    batch = {key: value[:1, :2] for key, value in tiny_batch("decoder").items()}
    layers = attach(model, make_method("lora_sb"), 0)
    peaks = []

    def run_backward() -> None:
        loss = model(**batch).loss
        peaks.append(_peak_bytes(loss.backward))

    if with_gradients:
        summed_gradients(layers, run_backward)
    else:
        run_backward()
    return peaks[0]


def test_extra_memory_is_one_matrix_at_every_depth() -> None:
    one_gradient = 4 * 48 * 32
    extra = {depth: _peak_bytes_of_backward(depth, True) - _peak_bytes_of_backward(depth, False) for depth in (2, 12)}
    for depth, found in extra.items():
        assert 0.5 * one_gradient < found < 2 * one_gradient, depth
    assert extra[12] == pytest.approx(extra[2], abs=0.1 * one_gradient)


@pytest.mark.gpu
def test_extra_device_memory_does_not_grow_with_depth() -> None:
    extra = {}
    for depth in (2, 12):
        model = tiny_model("decoder", torch.bfloat16, layers=depth).cuda()
        batch = {key: value.cuda() for key, value in tiny_batch("decoder").items()}
        layers = attach(model, make_method("lora_sb"), 0)
        peaks = []
        for run in (lambda step: step(), lambda step, layers=layers: summed_gradients(layers, step)):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run(lambda model=model, batch=batch: model(**batch).loss.backward())
            peaks.append(torch.cuda.max_memory_allocated() - before)
            model.zero_grad(set_to_none=True)
        extra[depth] = peaks[1] - peaks[0]
    assert extra[12] <= extra[2] + 4096
