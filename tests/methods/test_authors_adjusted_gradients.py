"""Preconditioned LoRA and LoRA-Pro against steps of their authors' optimizers, clipping included."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdsbench.methods.base import lookup
from sdsbench.training.training_config import TrainConfig
from tests.methods.replay import Replay, authors
from tests.methods.tiny import METHODS


def run(file: str, method: str, series: str, lr: float, clip: float | None, given: bool, **keys: Any) -> list[float]:
    """Five steps of training; the largest difference of A and B from the series after each."""
    train = TrainConfig(lr=lr, schedule="constant", clip_norm=clip, max_steps=5)
    replay = Replay(file, method, train, alpha=8.0, **keys).put(A="A0")
    if given:
        replay.put(B="B0")
    worst = []
    for step in range(1, 6):
        replay.give(step, A="gA", B="gB") if given else replay.backward(step)
        report = replay.update()
        assert report.grad_norm == pytest.approx(float(replay.tensors[f"{series}.raw_norm"][step - 1]), rel=1e-5)
        worst.append(replay.worst(series, step, "A", "B"))
    return worst


@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("start", ["generic", "zero_B"])
def test_preconditioned_lora_is_the_sds_authors_scaled_adam(start: str, clip: float | None) -> None:
    """Raw gradients are clipped, then divided by Gram matrices."""
    series = f"trainer.{start}.{'clipped' if clip else 'unclipped'}"
    worst = run("scaled_adam", "preconditioned_lora", series, 1e-3, clip, start == "generic", damping=1e-6)
    assert max(worst) < 2e-5, worst


ADJUSTING = [name for name in METHODS if lookup(name)[0].adjusts_gradients()]


def test_the_methods_that_adjust_gradients() -> None:
    assert ADJUSTING == ["altlora", "lora_pro", "preconditioned_lora"]


@pytest.mark.parametrize("method", ADJUSTING)
def test_clip_says_which_gradient_is_limited(method: str) -> None:
    """The reported norm is of what backward made (`raw`), or of what the method made of it (`adjusted`)."""

    def one_step(clip: str, clip_norm: float | None) -> tuple[float, torch.Tensor]:
        train = TrainConfig(lr=1.0, schedule="constant", optimizer="sgd", clip=clip, clip_norm=clip_norm)
        replay = Replay("scaled_adam", method, train, alpha=4.0 if method == "lora_pro" else 8.0).put(A="A0")
        assert replay.method.scale() == 2.0
        before = {name: layer.B.detach().clone() for name, layer in replay.layers.items()}
        replay.backward(1)
        norm = replay.update().grad_norm
        moved = [(layer.B.detach() - before[name]).flatten() for name, layer in replay.layers.items()]
        return norm, torch.cat(moved)  # while B = 0 only B moves

    raw, free = one_step("raw", None)
    adjusted, same = one_step("adjusted", None)
    assert torch.equal(free, same), "without a limit the order does not matter"
    assert raw == pytest.approx(float(authors("scaled_adam")["trainer.zero_B.unclipped.raw_norm"][0]))
    assert adjusted == pytest.approx(float(free.norm()), rel=1e-5) and abs(adjusted - raw) > 0.05 * raw
    torch.testing.assert_close(one_step("raw", 0.1)[1], free * 0.1 / raw, rtol=1e-4, atol=1e-8)
    assert float(one_step("adjusted", 0.1)[1].norm()) == pytest.approx(0.1, rel=1e-4)
