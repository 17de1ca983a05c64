"""MiLoRA and OLoRA against dense factorisations in fp64; start and base weights of all methods that split weights."""

from __future__ import annotations

import pytest
import torch

from sdsbench.methods.attach import attach
from sdsbench.methods.base import lookup
from sdsbench.methods.weight_split import WeightSplit
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import METHODS, logits, make_method, tiny_batch, tiny_model, tiny_session

SPLIT = tuple(name for name in METHODS if issubclass(lookup(name)[0], WeightSplit))
RANK = 4


def base_weights() -> dict[str, torch.Tensor]:
    """Layer -> weight of the model without a method, in fp64."""
    return {
        name.removesuffix(".weight"): tensor.detach().double()
        for name, tensor in tiny_model("decoder").named_parameters()
    }


@pytest.mark.parametrize("alpha", (4.0, 16.0))
def test_milora_factors_are_the_smallest_singular_triples(alpha: float) -> None:
    session = tiny_session("milora", alpha=alpha)
    for name, layer in session.layers.items():
        u_mk, s_k, vh_kn = torch.linalg.svd(base_weights()[name], full_matrices=False)
        minor_mn = u_mk[:, -RANK:] * s_k[-RANK:] @ vh_kn[-RANK:]
        a_rn, b_mr = layer.A.detach().double(), layer.B.detach().double()
        tolerance = 1e-5 * float(s_k[0])
        torch.testing.assert_close(alpha / RANK * b_mr @ a_rn, minor_mn, rtol=0, atol=tolerance)
        torch.testing.assert_close(layer.weight.double(), base_weights()[name] - minor_mn, rtol=0, atol=tolerance)
        # each factor has the square roots of the singular values, so both Gram matrices are diagonal and equal
        expected_rr = torch.diag(s_k[-RANK:] * RANK / alpha)
        torch.testing.assert_close(a_rn @ a_rn.T, expected_rr, rtol=0, atol=tolerance)
        torch.testing.assert_close(b_mr.T @ b_mr, expected_rr, rtol=0, atol=tolerance)


@pytest.mark.parametrize("alpha", (4.0, 16.0))
def test_olora_factors_are_the_leading_part_of_qr(alpha: float) -> None:
    """Compared with QR of the whole weight in fp64: B A, and the columns of B up to their signs."""
    session = tiny_session("olora", alpha=alpha)
    shapes = set()
    for name, layer in session.layers.items():
        q_mk, r_kn = torch.linalg.qr(base_weights()[name])
        a_rn, b_mr = layer.A.detach().double(), layer.B.detach().double()
        product_mn = q_mk[:, :RANK] @ r_kn[:RANK]
        tolerance = 1e-5 * float(r_kn.abs().max())
        torch.testing.assert_close(b_mr @ a_rn, product_mn, rtol=0, atol=tolerance)
        torch.testing.assert_close((b_mr.T @ q_mk[:, :RANK]).abs(), torch.eye(RANK).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            layer.weight.double(), base_weights()[name] - alpha / RANK * product_mn, rtol=0, atol=alpha * tolerance
        )
        assert torch.all(a_rn.diagonal() > 0), "the same signs on every machine"
        shapes.add(layer.out_features < layer.in_features)
    assert shapes == {True, False}, "wide and tall weights"


def test_olora_start_is_exact_with_dependent_columns() -> None:
    """The second column is twice the first, so R has a zero on its diagonal; B must be orthonormal all the same."""
    model = tiny_model("decoder")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight[:, 1] = 2 * module.weight[:, 0]
    base = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    layers = attach(model, make_method("olora"), 0)
    for name, layer in layers.items():
        torch.testing.assert_close(layer.B.detach().T @ layer.B.detach(), torch.eye(RANK), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            layer.method.merged_weight(layer).detach(), base[f"{name}.weight"], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("name", SPLIT)
def test_weight_at_the_start_is_the_base_up_to_the_recorded_rounding(name: str, dtype: torch.dtype) -> None:
    session, base_model = tiny_session(name, dtype=dtype), tiny_model("decoder", dtype)
    deviations = []
    for layer_name, layer in session.layers.items():
        base_mn = base_model.get_submodule(layer_name).weight.detach().double()
        start_mn = session.method.merged_weight(layer).detach().double()
        deviations.append(float((start_mn - base_mn).norm() / base_mn.norm()))
    recorded = session.facts["residual_rounding_max"]
    assert recorded <= {torch.float32: 0, torch.bfloat16: 2**-8}[dtype] * 4
    assert max(deviations) == pytest.approx(recorded, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("name", SPLIT)
def test_weights_of_the_base_model_are_not_changed(name: str) -> None:
    """Runs that train side by side share them."""
    model = tiny_model("decoder")
    own = {key: (tensor, tensor.detach().clone()) for key, tensor in model.named_parameters()}
    layers = attach(model, make_method(name), 0)
    assert all(torch.equal(tensor, copy) for tensor, copy in own.values())
    assert all(layer.weight is not own[f"{key}.weight"][0] for key, layer in layers.items())


def state_at_the_start(name: str) -> tuple[torch.nn.Module, TrainState]:
    model, method, config = tiny_model("decoder"), make_method(name), TrainConfig()
    layers = attach(model, method, 0)
    return model, TrainState(FlatOptimizer(optimizer_groups(model, method, [], config), config), method, layers)


@pytest.mark.parametrize("name", SPLIT)
def test_a_checkpoint_of_a_machine_with_another_svd_keeps_its_residual(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factors of the checkpoint belong to the residual that is left beside them, not to this machine's."""
    model, state = state_at_the_start(name)
    with torch.no_grad():
        for layer in state.layers.values():
            layer.B.add_(0.1)
    expected, tensors, facts = logits(model, tiny_batch("decoder")), state.tensors(), state.facts()
    kind = lookup(name)[0]
    factors = kind.initial_factors
    other = lambda self, layer, generator: (1.1 * factors(self, layer, generator)[0], torch.ones(4, layer.in_features))  # noqa: E731
    monkeypatch.setattr(kind, "initial_factors", other)
    model, state = state_at_the_start(name)
    state.load(tensors, facts)
    torch.testing.assert_close(logits(model, tiny_batch("decoder")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ("milora", "olora"))
def test_start_does_not_depend_on_the_seed(name: str) -> None:
    first, second = tiny_session(name, seed=0), tiny_session(name, seed=1)
    for key, layer in first.layers.items():
        assert torch.equal(layer.A, second.layers[key].A) and torch.equal(layer.B, second.layers[key].B)
