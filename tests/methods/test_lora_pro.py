"""LoRA-Pro: identities of its paper, and both modes against dense references in fp64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdsbench.core.errors import TrainingFailed
from sdsbench.methods import attach as attach_module
from sdsbench.methods.attach import attach
from sdsbench.methods.lora_pro import adjusted_gradients
from tests.methods.tiny import make_method, tiny_model, tiny_session

M, N, R, S = 9, 7, 3, 1.7


def random_factors_and_gradients(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A, B, G and the LoRA gradients gA = s B^T G, gB = s G A^T, in fp64."""
    generator = torch.Generator().manual_seed(seed)
    a, b, g = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((R, N), (M, R), (M, N)))
    return a, b, g, S * b.t() @ g, S * g @ a.t()


def adjusted_pair(a: Tensor, b: Tensor, ga: Tensor, gb: Tensor, closest: bool = True, damping: float = 0.0):
    batch = (tensor.unsqueeze(0) for tensor in (a, b, ga, gb))
    adjusted = adjusted_gradients(*batch, S, damping, closest=closest)
    return adjusted[0][0], adjusted[1][0]


def equivalent_gradient(a: Tensor, b: Tensor, ga: Tensor, gb: Tensor) -> Tensor:
    """The equivalent gradient s (B gA + gB A) of a pair."""
    return S * (b @ ga + gb @ a)


def projector(x: Tensor) -> Tensor:
    """The orthogonal projector onto the columns of x."""
    return x @ torch.linalg.pinv(x)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_equivalent_gradient_is_the_projection_for_every_x(seed: int) -> None:
    a, b, g, ga, gb = random_factors_and_gradients(seed)
    outside = (torch.eye(M) - projector(b)) @ g @ (torch.eye(N) - projector(a.t()))
    for closest in (True, False):
        torch.testing.assert_close(
            equivalent_gradient(a, b, *adjusted_pair(a, b, ga, gb, closest)), g - outside, rtol=1e-6, atol=1e-6
        )
    without_x_a, without_x_b = adjusted_pair(a, b, ga, gb, closest=False)
    x = torch.randn(R, R, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        equivalent_gradient(a, b, without_x_a + x @ a, without_x_b - b @ x), g - outside, rtol=1e-6, atol=1e-6
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_no_other_x_is_closer_to_the_lora_gradients(seed: int) -> None:
    a, b, _, ga, gb = random_factors_and_gradients(seed)
    best_a, best_b = adjusted_pair(a, b, ga, gb)

    def distance(x: Tensor) -> float:
        return float((best_a + x @ a - ga).square().sum() + (best_b - b @ x - gb).square().sum())

    generator = torch.Generator().manual_seed(seed)
    best = distance(torch.zeros(R, R).double())
    for size in (1e-3, 1e-1, 1.0):
        assert distance(size * torch.randn(R, R, generator=generator, dtype=torch.float64)) > best


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_no_perturbed_pair_has_an_equivalent_gradient_closer_to_g(seed: int) -> None:
    """The pair's equivalent gradient is the closest to G of all s B dA + s dB A."""
    a, b, g, ga, gb = random_factors_and_gradients(seed)
    best_a, best_b = adjusted_pair(a, b, ga, gb)
    best = (equivalent_gradient(a, b, best_a, best_b) - g).square().sum()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        da, db = (0.1 * torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (a, b))
        assert (equivalent_gradient(a, b, best_a + da, best_b + db) - g).square().sum() >= best - 1e-9


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_loss_decreases_by_the_squared_equivalent_gradient(seed: int) -> None:
    """dL/dt = -<gA, gA'> - <gB, gB'> = -|equivalent gradient|^2 (theorem 2.3 of the paper)."""
    a, b, _, ga, gb = random_factors_and_gradients(seed)
    adjusted_a, adjusted_b = adjusted_pair(a, b, ga, gb)
    change = -((ga * adjusted_a).sum() + (gb * adjusted_b).sum())
    torch.testing.assert_close(
        change, -equivalent_gradient(a, b, adjusted_a, adjusted_b).square().sum(), rtol=1e-6, atol=1e-8
    )


def test_first_step_has_no_gradient_for_a() -> None:
    a, _, g, _, _ = random_factors_and_gradients(0)
    b = torch.zeros(M, R).double()
    adjusted_a, adjusted_b = adjusted_pair(a, b, S * b.t() @ g, S * g @ a.t(), damping=1e-6)
    assert adjusted_a.abs().max() == 0
    torch.testing.assert_close(adjusted_b, S * g @ a.t() @ torch.linalg.inv(a @ a.t()) / S**2, rtol=1e-4, atol=1e-6)


def reference_adjusted(a: Tensor, b: Tensor, ga: Tensor, gb: Tensor, s: float, closest: bool = True):
    """The adjusted pair by dense inverses and a linear system with Kronecker products."""
    if b.abs().max() == 0:
        return torch.zeros_like(ga), gb @ torch.linalg.inv(a @ a.t()) / s**2
    btb, aat = b.t() @ b, a @ a.t()
    rank = len(aat)
    without_x_a = torch.linalg.solve(btb, ga) / s**2
    without_x_b = (gb - b @ torch.linalg.solve(btb, b.t() @ gb)) @ torch.linalg.inv(aat) / s**2
    if not closest:
        return without_x_a, without_x_b
    eye = torch.eye(rank, dtype=a.dtype)
    system = torch.kron(btb, eye) + torch.kron(eye, aat)
    x = torch.linalg.solve(system, (-without_x_a @ a.t()).reshape(-1)).view(rank, rank)
    return without_x_a + x @ a, without_x_b - b @ x


@pytest.mark.parametrize("mode", ["efficient", "full"])
def test_twelve_steps_equal_a_dense_reference(mode: str) -> None:
    """One layer with squared error against dense formulas in fp64; Adam's bias correction counts from t = 1."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(50, 10, generator=generator), torch.randn(50, 12, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(10, 12))
    method = make_method("lora_pro", mode=mode, alpha=2.0, rank=3, damping=1e-9)
    layers = attach(model, method, 0)
    layer, s, lr = layers["0"], method.scale(), 1e-3
    assert s == pytest.approx(2 / 3**0.5)
    a, b = layer.A.detach().double(), layer.B.detach().double()
    w0, bias = layer.weight.double(), layer.bias.double()
    moments = {key: [0.0, 0.0] for key in "abd"}

    def adam(key: str, gradient: Tensor, t: int) -> Tensor:
        first, second = moments[key]
        moments[key] = [0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2]
        first, second = moments[key]
        return first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)

    parameters = [layer.A, layer.B]
    sgd = method.update_rule == "sgd"
    optimizer = torch.optim.SGD(parameters, lr=lr) if sgd else torch.optim.Adam(parameters, lr=lr)
    for t in range(1, 13):
        optimizer.zero_grad()
        (0.5 * (model(x) - y) ** 2).mean().backward()
        method.before_step(layers, t, lr)
        optimizer.step()

        error = x.double() @ (w0 + s * b @ a).t() + bias - y.double()
        g = error.t() @ x.double() / error.numel()
        ga, gb = s * b.t() @ g, s * g @ a.t()
        if mode == "full":
            da, db = reference_adjusted(a, b, ga, gb, s, closest=False)
            d = adam("d", s * (b @ da + db @ a), t)
            da, db = reference_adjusted(a, b, s * b.t() @ d, s * d @ a.t(), s)
            a, b = a - lr * da, b - lr * db
        else:
            da, db = reference_adjusted(a, b, ga, gb, s)
            a, b = a - lr * adam("a", da, t) if t > 1 else a, b - lr * adam("b", db, t)
            if t == 1:
                adam("a", torch.zeros_like(a), t)
        torch.testing.assert_close(s * layer.B.double() @ layer.A.double(), s * b @ a, rtol=1e-3, atol=1e-6)


def test_scaling_is_standard_or_rank_stabilised() -> None:
    assert make_method("lora_pro", alpha=4.0, scaling="standard").scale() == 1.0
    assert make_method("lora_pro", alpha=4.0, scaling="rank_stabilized").scale() == 2.0


def test_full_mode_uses_sgd_since_it_computes_the_adam_direction() -> None:
    assert make_method("lora_pro").update_rule == "configured"
    assert make_method("lora_pro", mode="full").update_rule == "sgd"


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_full_mode_without_enough_memory_is_refused_before_it_allocates(monkeypatch, dtype: str, size: int) -> None:
    method = make_method("lora_pro", mode="full", moment_dtype=dtype)
    assert method.state_bytes(4096, 1024) == 2 * 4096 * 1024 * size
    monkeypatch.setattr(attach_module, "_free_bytes", lambda device: 1000)
    with pytest.raises(TrainingFailed, match="mode=efficient") as caught:
        attach(tiny_model("decoder"), method, 0)
    assert caught.value.kind == "oom"
    attach(tiny_model("decoder"), make_method("lora_pro"), 0)


def test_moments_are_saved_in_checkpoints_but_not_in_adapters() -> None:
    session = tiny_session("lora_pro", mode="full", moment_dtype="bfloat16")
    session.train(2, lr=1e-4)
    layer = next(iter(session.layers.values()))
    assert layer.moment2.dtype == torch.bfloat16 and layer.moment2.abs().max() > 0
    assert set(layer.method_tensors()) == {"A", "B"}
    assert {"moment1", "moment2"} <= set(layer.method_tensors(training_state=True))


def test_gradients_are_changed_in_place() -> None:
    """The optimizer reads gradients from one flat buffer, so a newly assigned .grad would be ignored."""
    session = tiny_session("lora_pro")
    session.model(**session.batch).loss.backward()
    layer = next(iter(session.layers.values()))
    before, pointer = layer.B.grad.clone(), layer.B.grad.data_ptr()
    session.method.before_step(session.layers, 1, 1e-2)
    assert layer.B.grad.data_ptr() == pointer and not torch.equal(layer.B.grad, before)
