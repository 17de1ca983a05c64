"""Preconditioned LoRA: its gradients against the formula, and what they make of an ill-conditioned factor."""

from __future__ import annotations

import torch

from tests.methods.tiny import start


def test_gradients_are_the_formula() -> None:
    session = start("preconditioned_lora")
    session.train(steps=2)
    session.optimizer.zero_grad()
    session.model(**session.batch).loss.backward()
    raw = {name: (layer.A.grad.double(), layer.B.grad.double()) for name, layer in session.layers.items()}
    session.method.before_step(session.layers, 3, 1e-2)
    identity_rr = 1e-6 * torch.eye(4, dtype=torch.float64)
    for name, layer in session.layers.items():
        a_rn, b_mr = layer.A.detach().double(), layer.B.detach().double()
        ga_rn, gb_mr = raw[name]
        expected_a = torch.linalg.inv(b_mr.T @ b_mr + identity_rr) @ ga_rn
        expected_b = gb_mr @ torch.linalg.inv(a_rn @ a_rn.T + identity_rr)
        assert (layer.A.grad - expected_a).norm() < 1e-2 * expected_a.norm()
        assert (layer.B.grad - expected_b).norm() < 1e-4 * expected_b.norm()


def test_first_step_leaves_A_alone() -> None:
    session = start("preconditioned_lora")
    session.model(**session.batch).loss.backward()
    session.method.before_step(session.layers, 1, 1e-2)
    assert all(torch.count_nonzero(layer.A.grad) == 0 for layer in session.layers.values())
    assert all(torch.count_nonzero(layer.B.grad) > 0 for layer in session.layers.values())
