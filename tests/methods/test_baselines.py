"""LoRA+, preconditioned LoRA and LoRA-GA against their formulas."""

from __future__ import annotations

import pytest
import torch

from sdsbench.core.errors import ConfigError
from tests.methods.test_lora_xs_sb import gradients_of
from tests.methods.tiny import start


def test_lora_plus_equals_two_learning_rates() -> None:
    plus, lora = start("lora_plus", ratio=5.0), start("lora")
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


def test_preconditioned_gradients() -> None:
    session = start("preconditioned_lora", damping=1e-3)
    session.train(3)
    session.optimizer.zero_grad()
    session.model(**session.batch).loss.backward()
    raw = {name: (layer.A.grad.double(), layer.B.grad.double()) for name, layer in session.layers.items()}
    session.method.before_step(session.layers, 4, 1e-2)
    eye = 1e-3 * torch.eye(4).double()
    for name, layer in session.layers.items():
        a, b, (ga, gb) = layer.A.detach().double(), layer.B.detach().double(), raw[name]
        expected_a = torch.linalg.inv(b.t() @ b + eye) @ ga
        expected_b = gb @ torch.linalg.inv(a @ a.t() + eye)
        for found, expected in ((layer.A.grad, expected_a), (layer.B.grad, expected_b)):
            torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_lora_ga_starts_along_the_gradient() -> None:
    session = start("lora_ga", svd_iterations=20)
    assert session.facts["gradient_rows"] == 8
    for name, layer in session.layers.items():
        u, _, vh = torch.linalg.svd(gradients_of()[name].double())
        level = layer.out_features**0.25 / 4
        overlap_a = (layer.A.detach().double() @ vh[:4].t() / level).abs()
        overlap_b = (u[:, 4:8].t() @ layer.B.detach().double() / level).abs()
        torch.testing.assert_close(overlap_a, torch.eye(4).double(), atol=1e-2, rtol=0)
        torch.testing.assert_close(overlap_b, torch.eye(4).double(), atol=1e-2, rtol=0)
        assert session.method.delta(layer).abs().max() < 1e-6


def test_lora_ga_needs_two_ranks_of_singular_vectors() -> None:
    with pytest.raises(ConfigError, match="at most 8"):
        start("lora_ga", rank=9)
