"""The first-order change of every method compared with its closed form, dense and in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdsbench.methods.gradients import summed_gradients
from sdsbench.training.probes.change import change_between, first_order_change, method_direction
from sdsbench.training.probes.layers import AdapterProbe
from tests.methods.tiny import Session, tiny_session

PLAIN = ("lora", "rslora", "pissa", "milora", "olora")
CLOSED = (*PLAIN, "lora_pro", "preconditioned_lora", "lora_xs", "lora_sb", "sds_lora")
LOW_RANK = (*CLOSED, "dora")


def trained(name: str, **keys: object) -> Session:
    session = tiny_session(name, dtype=torch.float64, **keys)
    session.train(steps=4)
    return session


def gradients(session: Session) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """G of each layer and J^T G of its parameters, from one ordinary backward pass."""
    raw: dict[str, dict[str, Tensor]] = {}

    def run_backward() -> None:
        session.optimizer.zero_grad()
        session.model(**session.batch).loss.backward()
        for name, layer in session.layers.items():
            raw[name] = {key: p.grad.clone() for key, p in layer.named_parameters() if p.requires_grad}

    return summed_gradients(session.layers, run_backward), raw


def projector(columns_dr: Tensor) -> Tensor:
    return columns_dr @ torch.linalg.pinv(columns_dr)


def closed_form(name: str, layer: torch.nn.Module, s: float, g_mn: Tensor) -> Tensor:
    tensors = {key: tensor.double() for key, tensor in layer.method_tensors().items()}
    a_rn, b_mr = tensors["A"], tensors["B"]
    if name in PLAIN:
        return s**2 * (b_mr @ b_mr.T @ g_mn + g_mn @ a_rn.T @ a_rn)
    if name == "sds_lora":
        return s**2 * (projector(tensors["Q_B"]) @ g_mn + g_mn @ projector(tensors["Q_A"]))
    if name == "lora_pro":
        identity_m, identity_n = torch.eye(len(g_mn)), torch.eye(g_mn.shape[1])
        return g_mn - (identity_m - projector(b_mr)) @ g_mn @ (identity_n - projector(a_rn.T))
    if name == "preconditioned_lora":
        return s**2 * (projector(b_mr) @ g_mn + g_mn @ projector(a_rn.T))
    if name in ("lora_xs", "lora_sb"):
        return s**2 * b_mr @ b_mr.T @ g_mn @ a_rn.T @ a_rn
    raise AssertionError(name)


@pytest.mark.parametrize("name", CLOSED)
def test_first_order_change_equals_the_closed_form(name: str) -> None:
    keys = {"lora_pro": {"damping": 1e-12}, "preconditioned_lora": {"damping": 1e-14}}.get(name, {})
    session = trained(name, **keys)
    g, raw = gradients(session)
    for layer_name, layer in session.layers.items():
        at = {key: p.detach() for key, p in layer.named_parameters() if p.requires_grad}
        found = first_order_change(layer, at, method_direction(layer, raw[layer_name], {}, step=5))
        expected = closed_form(name, layer, session.method.scale(), g[layer_name])
        assert (found - expected).norm() < 1e-6 * expected.norm(), layer_name


@pytest.mark.parametrize("name", (*CLOSED, "lora_ga"))
def test_first_order_change_lies_in_the_spans_of_the_bases(name: str) -> None:
    """What is outside of both spans, (I - P_up) E (I - P_down), is 0; LoRA-GA's constant second branch adds none."""
    session = trained(name)
    g, raw = gradients(session)
    for layer_name, layer in session.layers.items():
        probe = AdapterProbe(layer)
        at = probe.snapshot()
        with torch.no_grad():
            view = probe.view(at, at, g[layer_name], raw[layer_name], probe.training_state(), step=5)
        assert view.bases is not None
        up_mr, down_rn = (basis.double() for basis in view.bases)
        outside_mn = view.equivalent_mn - projector(up_mr) @ view.equivalent_mn
        outside_mn = outside_mn - outside_mn @ projector(down_rn.T)
        assert outside_mn.norm() < 1e-6 * view.equivalent_mn.norm(), layer_name


def test_dora_equals_differences_of_the_merged_weight() -> None:
    """J by central differences of merged_weight, which includes the change of DoRA's norm."""
    session = trained("dora")
    _, raw = gradients(session)
    for layer_name, layer in session.layers.items():
        at = {key: p.detach().clone() for key, p in layer.named_parameters() if p.requires_grad}
        found = first_order_change(layer, at, raw[layer_name])
        ends = []
        step = 1e-6 / max(float(g.norm()) for g in raw[layer_name].values())
        with torch.no_grad():
            for sign in (1, -1):
                for key, parameter in at.items():
                    getattr(layer, key).copy_(parameter + sign * step * raw[layer_name][key])
                ends.append(session.method.merged_weight(layer))
        difference = (ends[0] - ends[1]) / (2 * step)
        assert (found - difference).norm() < 1e-5 * difference.norm()


@pytest.mark.parametrize("name", LOW_RANK)
def test_change_between_two_states_equals_that_of_merged_weights(name: str) -> None:
    session = trained(name)
    for layer in session.layers.values():
        old = {key: p.detach().clone() for key, p in layer.named_parameters() if p.requires_grad}
        before = session.method.merged_weight(layer).detach()
        generator = torch.Generator().manual_seed(7)
        new = {key: value + 1e-3 * torch.randn(value.shape, generator=generator) for key, value in old.items()}
        found = change_between(layer, old, new)
        with torch.no_grad():
            for key, value in new.items():
                getattr(layer, key).copy_(value)
            expected = session.method.merged_weight(layer) - before
        tolerance = 1e-4 if name == "dora" else 1e-9
        assert (found - expected).norm() < tolerance * expected.norm()
        assert math.isfinite(float(found.norm())) and found.norm() > 0


def test_direction_leaves_gradients_and_moments_alone() -> None:
    session = tiny_session("lora_pro", mode="full")
    session.train(steps=4)
    _, raw = gradients(session)
    name, layer = next(iter(session.layers.items()))
    gradient, moment = layer.A.grad.clone(), layer.moment2.clone()
    adjusted = method_direction(layer, raw[name], {"moment2": torch.zeros_like(moment)}, step=5)
    assert not torch.equal(adjusted["A"], raw[name]["A"])
    assert torch.equal(layer.A.grad, gradient) and torch.equal(layer.moment2, moment)
