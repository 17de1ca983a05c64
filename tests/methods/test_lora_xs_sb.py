"""LoRA-XS and LoRA-SB against dense formulas in fp64, and the options of LoRA-SB's start."""

from __future__ import annotations

import pytest
import torch

from tests.methods.tiny import Context, logits, tiny_batch, tiny_model, tiny_session


def base_gradients(family: str = "decoder") -> dict[str, torch.Tensor]:
    """dL/dW of the model without a method, by autograd."""
    model = tiny_model(family)
    model(**tiny_batch(family)).loss.backward()
    return {name.removesuffix(".weight"): p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_xs_factors_are_the_leading_singular_triples_of_the_weight() -> None:
    session = tiny_session("lora_xs", alpha=8.0)
    for layer in session.layers.values():
        _, s, vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
        torch.testing.assert_close(layer.B.t() @ layer.B, torch.eye(4), atol=1e-5, rtol=0)
        torch.testing.assert_close((layer.A @ layer.A.t()).double(), torch.diag(s[:4] ** 2), atol=1e-3, rtol=1e-4)
        overlap = (vh[:4] @ layer.A.double().t() / s[:4]).abs()
        torch.testing.assert_close(overlap, torch.eye(4).double(), atol=1e-3, rtol=0)
        assert 0 < layer.R.detach().std() < 3e-5
    assert session.method.scale() == 2.0
    assert {name.rsplit(".", 1)[1] for name in session.trainable()} == {"R"}


@pytest.mark.parametrize(("side", "up", "down"), [("down", 0.0, 1.0), ("up", 1.0, 0.0), ("split", 0.5, 0.5)])
def test_xs_singular_values_are_in_the_configured_factor(side: str, up: float, down: float) -> None:
    session = tiny_session("lora_xs", singular_values=side)
    for layer in session.layers.values():
        s = torch.linalg.svdvals(layer.weight)[:4]
        torch.testing.assert_close(layer.B.norm(dim=0), s**up, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.A.norm(dim=1), s**down, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lora_xs", "lora_sb"])
def test_gradient_of_r_equals_a_dense_reference(name: str) -> None:
    """dL/dR = s B^T G A^T in every layer, where G = dL/dW of the merged model by autograd."""
    from sdsbench.methods.attach import merged

    session = tiny_session(name, alpha=2.0)
    dense = merged(session.model, torch.float32).requires_grad_(True)
    dense(**session.batch).loss.backward()
    session.model(**session.batch).loss.backward()
    for layer_name, layer in session.layers.items():
        g = dense.get_submodule(layer_name).weight.grad.double()
        expected = session.method.scale() * layer.B.double().t() @ g @ layer.A.double().t()
        torch.testing.assert_close(layer.R.grad.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_sb_start_is_the_best_low_rank_signed_step(alpha: float) -> None:
    session = tiny_session("lora_sb", svd="exact", alpha=alpha)
    gradients, eta = base_gradients(), 1e-3 / 2  # learning rate / warm-up steps
    assert session.facts["eta"] == pytest.approx(eta)
    for name, layer in session.layers.items():
        u, s, vh = torch.linalg.svd(-eta * gradients[name].double().sign(), full_matrices=False)
        best = (u[:, :4] * s[:4]) @ vh[:4]
        torch.testing.assert_close(session.method.delta(layer).double(), best, rtol=0, atol=1e-6)
        eye = torch.eye(4)
        torch.testing.assert_close(layer.B.t() @ layer.B, eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.A @ layer.A.t(), eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.R.double(), torch.diag(s[:4]) / alpha, atol=1e-6, rtol=1e-4)
        assert torch.equal(layer.weight, tiny_model("decoder").get_submodule(name).weight)
    assert 0 < session.facts["first_step_kept"] < 1


def test_sb_start_with_oversampled_svd_is_near_the_exact_one() -> None:
    exact, fast = tiny_session("lora_sb", svd="exact"), tiny_session("lora_sb", svd="oversampled")
    for layer, other in zip(exact.layers.values(), fast.layers.values(), strict=True):
        difference = exact.method.delta(layer) - fast.method.delta(other)
        assert difference.norm() < 0.02 * exact.method.delta(layer).norm()
    assert tiny_session("lora_sb", svd="authors").facts["first_step_kept"] <= exact.facts["first_step_kept"] + 1e-6


def test_sb_eta_of_the_paper_is_the_learning_rate() -> None:
    assert tiny_session("lora_sb", eta="paper").facts["eta"] == pytest.approx(1e-3)


def test_sb_start_without_sign_is_the_best_low_rank_gradient_step() -> None:
    session = tiny_session("lora_sb", sign=False, svd="exact")
    for name, layer in session.layers.items():
        expected = -5e-4 * base_gradients()[name]
        u, s, vh = torch.linalg.svd(expected.double(), full_matrices=False)
        best = (u[:, :4] * s[:4]) @ vh[:4]
        torch.testing.assert_close(
            session.method.delta(layer).double(), best, rtol=1e-3, atol=1e-3 * float(best.abs().max())
        )


@pytest.mark.parametrize(
    ("keys", "rows"), [({}, 1), ({"sample_fraction": 0.05}, 50), ({"samples": 7}, 7), ({"samples": 5000}, 1000)]
)
def test_sb_number_of_gradient_rows_follows_its_options(keys: dict, rows: int) -> None:
    assert tiny_session("lora_sb", **keys).facts["gradient_rows"] == rows


def test_sb_noise_changes_the_start() -> None:
    clean, noisy = tiny_session("lora_sb", svd="exact"), tiny_session("lora_sb", svd="exact", noise_std=1e-2)
    changed = [
        (clean.method.delta(a) - noisy.method.delta(b)).norm() / clean.method.delta(a).norm()
        for a, b in zip(clean.layers.values(), noisy.layers.values(), strict=True)
    ]
    assert min(changed) > 1


def test_sb_kaiming_start_needs_no_gradient() -> None:
    from sdsbench.methods.attach import attach
    from tests.methods.tiny import make_method

    method = make_method("lora_sb", start="kaiming")
    layers = attach(tiny_model("decoder"), method, 0)
    context = Context(lambda: pytest.fail("gradients were requested"))
    assert set(method.prepare(layers, context)) == {"first_step_kept"}, "no eta and no rows of gradients"
    assert context.rows == [] and all(method.delta(layer).norm() > 0.1 for layer in layers.values())


def test_sb_without_gradient_approximation_trains_from_the_identity() -> None:
    on, off = tiny_session("lora_sb", svd="exact"), tiny_session("lora_sb", svd="exact", approximation=False)
    for layer, other in zip(on.layers.values(), off.layers.values(), strict=True):
        torch.testing.assert_close(other.R.detach(), torch.eye(4))
        torch.testing.assert_close(on.method.delta(layer), off.method.delta(other), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(other.B.norm(dim=0), layer.R.detach().diagonal(), rtol=1e-4, atol=1e-7)


def test_sb_bf16_options_round_factors_and_r() -> None:
    """At the start only; test_authors_starts.py compares steps in bf16 with those of the authors."""
    session = tiny_session("lora_sb", factor_dtype="bfloat16", r_dtype="bfloat16")
    for layer in session.layers.values():
        for tensor in (layer.A, layer.B, layer.R.detach()):
            assert torch.equal(tensor, tensor.bfloat16().float())
    exact = tiny_session("lora_sb")
    exact.train(3)
    assert not torch.equal(next(iter(exact.layers.values())).R, next(iter(exact.layers.values())).R.bfloat16().float())


def test_sb_start_has_a_lower_loss_than_the_base_model() -> None:
    session = tiny_session("lora_sb", svd="exact")
    base = tiny_model("decoder")
    before, after = base(**session.batch).loss.item(), session.model(**session.batch).loss.item()
    assert after < before
    assert (logits(session.model, session.batch) - logits(base, session.batch)).abs().max() > 1e-3
