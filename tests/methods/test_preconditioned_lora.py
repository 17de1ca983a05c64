"""Preconditioned LoRA: its gradients against the formula in fp64."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods.tiny import Session, tiny_session


def gradients_and_formula(session: Session, step: int, damping: float) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """After `step` - 1 steps, for every layer: gradient of A, its formula in fp64, gradient of B, its formula."""
    session.train(step - 1)
    session.optimizer.zero_grad()
    session.model(**session.batch).loss.backward()
    raw = {name: (layer.A.grad.double(), layer.B.grad.double()) for name, layer in session.layers.items()}
    session.method.before_step(session.layers, step, 1e-2)
    damping_rr = damping * torch.eye(4, dtype=torch.float64)
    found = []
    for name, layer in session.layers.items():
        a_rn, b_mr, (ga_rn, gb_mr) = layer.A.detach().double(), layer.B.detach().double(), raw[name]
        expected_a = torch.linalg.inv(b_mr.T @ b_mr + damping_rr) @ ga_rn
        expected_b = gb_mr @ torch.linalg.inv(a_rn @ a_rn.T + damping_rr)
        found.append((layer.A.grad, expected_a, layer.B.grad, expected_b))
    return found


def test_gradients_equal_the_formula() -> None:
    session = tiny_session("preconditioned_lora")
    for grad_a, expected_a, grad_b, expected_b in gradients_and_formula(session, 3, 1e-6):
        assert (grad_a - expected_a).norm() < 1e-2 * expected_a.norm()
        assert (grad_b - expected_b).norm() < 1e-4 * expected_b.norm()


def test_gradients_with_larger_damping_equal_the_formula() -> None:
    session = tiny_session("preconditioned_lora", damping=1e-3)
    for grad_a, expected_a, grad_b, expected_b in gradients_and_formula(session, 4, 1e-3):
        for found, expected in ((grad_a, expected_a), (grad_b, expected_b)):
            torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_first_step_changes_only_b() -> None:
    session = tiny_session("preconditioned_lora")
    session.model(**session.batch).loss.backward()
    session.method.before_step(session.layers, 1, 1e-2)
    assert all(torch.count_nonzero(layer.A.grad) == 0 for layer in session.layers.values())
    assert all(torch.count_nonzero(layer.B.grad) > 0 for layer in session.layers.values())
