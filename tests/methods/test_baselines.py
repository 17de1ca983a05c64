"""LoRA+ and LoRA-GA against their formulas."""

from __future__ import annotations

import pytest
import torch

from sdsbench.core.errors import ConfigError
from tests.methods.test_lora_xs_sb import base_gradients
from tests.methods.tiny import tiny_session


def test_lora_plus_equals_lora_with_two_learning_rates() -> None:
    plus, lora = tiny_session("lora_plus", ratio=5.0), tiny_session("lora")
    factors = [[getattr(layer, name) for layer in lora.layers.values()] for name in "AB"]
    optimizer = torch.optim.AdamW(
        [{"params": factors[0], "lr": 1e-3}, {"params": factors[1], "lr": 5e-3}], weight_decay=0
    )
    for _ in range(6):
        optimizer.zero_grad()
        loss = lora.model(**lora.batch).loss
        loss.backward()
        assert plus.train(1, lr=1e-3)[0] == pytest.approx(loss.item(), rel=1e-5)
        optimizer.step()


def test_lora_ga_starts_at_singular_vectors_of_the_gradient() -> None:
    session = tiny_session("lora_ga", svd_iterations=20)
    assert session.facts["gradient_rows"] == 8
    for name, layer in session.layers.items():
        u, _, vh = torch.linalg.svd(base_gradients()[name].double())
        level = layer.out_features**0.25 / 4
        overlap_a = (layer.A.detach().double() @ vh[:4].t() / level).abs()
        overlap_b = (u[:, 4:8].t() @ layer.B.detach().double() / level).abs()
        torch.testing.assert_close(overlap_a, torch.eye(4).double(), atol=1e-2, rtol=0)
        torch.testing.assert_close(overlap_b, torch.eye(4).double(), atol=1e-2, rtol=0)
        assert session.method.delta(layer).abs().max() < 1e-6


def test_lora_ga_accepts_at_most_half_the_number_of_singular_vectors_as_rank() -> None:
    with pytest.raises(ConfigError, match="at most 8"):
        tiny_session("lora_ga", rank=9)
