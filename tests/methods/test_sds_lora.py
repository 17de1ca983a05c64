"""SDS-LoRA: split, gradients, refreshes with schedule and guard, variants, and 50 steps of a dense reference."""

from __future__ import annotations

import math

import pytest
import torch

from sdsbench.methods.attach import attach
from sdsbench.methods.export import export_peft
from sdsbench.methods.sds_lora import SDSLoRAConfig, refresh_due
from tests.methods.tiny import Session, logits, make_method, tiny_batch, tiny_model, tiny_session

SCALE = 4.0 / math.sqrt(4)  # alpha / sqrt r


def deltas(session) -> list[torch.Tensor]:
    """The update of each layer's weight."""
    return [session.method.delta(layer).detach() for layer in session.layers.values()]


def ranks(session) -> list[int]:
    """The numerical rank of each layer's update."""
    return [int(torch.linalg.matrix_rank(delta, rtol=1e-5)) for delta in deltas(session)]


def test_warm_up_equals_rslora() -> None:
    sds, rslora = tiny_session("sds_lora", warmup_steps=4), tiny_session("rslora", alpha=4.0)
    assert sds.train(3) == rslora.train(3)
    assert sds.cleared == 0


@pytest.mark.parametrize("variant", ["sds", "scaled_bases", "reset_lora"])
def test_split_preserves_the_update_and_clears_state_once(variant: str) -> None:
    session = tiny_session("sds_lora", warmup_steps=3, variant=variant, refresh="never")
    session.train(2)
    after_step, before = session.method.after_step, []

    def recording_after_step(*arguments):
        before[:] = deltas(session)
        return after_step(*arguments)

    session.method.after_step = recording_after_step
    session.train(1)
    for old, new in zip(before, deltas(session), strict=True):
        assert old.norm() > 0
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-6 * old.abs().max().item() + 1e-7)
    assert session.cleared == 1
    session.train(6)
    assert session.cleared == 1
    assert set(session.events) == {3}


@pytest.mark.parametrize(("pre_steps", "accepted"), [(0, True), (4, False), (5, True), (7, True)])
def test_pre_steps_that_find_no_bases_are_refused(pre_steps: int, accepted: bool) -> None:
    """The run would start from A = B = 0 without bases, where no gradient is other than 0."""
    problems = [str(problem) for problem in SDSLoRAConfig(pre_steps=pre_steps, pre_interval=5).problems()]
    assert problems == [] if accepted else "method.pre_steps=4: accepted: 0, or at least" in problems[0]
    inert = SDSLoRAConfig(pre_steps=pre_steps, pre_interval=5, variant="reset_lora")
    assert list(inert.problems()) == []


class FirstStage:
    """A DataContext that trains a session at a constant rate."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def train_at_constant_rate(self, steps, after_step) -> None:
        session, method = self.session, self.session.method
        calls, method.after_step = method.after_step, lambda layers, step, total, optimizer: after_step(step, optimizer)
        session.train(steps)
        method.after_step, session.step = calls, 0


def test_split_after_pre_steps_reports_what_it_leaves_out() -> None:
    """With bases the update of the warm-up has rank 2r, of which the split keeps the r leading triples."""
    model, method = tiny_model("decoder"), make_method("sds_lora", warmup_steps=3, pre_steps=2, pre_interval=2)
    session = Session(model, method, attach(model, method, 0), tiny_batch("decoder"), {})
    method.prepare(session.layers, FirstStage(session))
    session.train(2)
    after_step, before = method.after_step, []
    method.after_step = lambda *arguments: before.extend(deltas(session)) or after_step(*arguments)
    session.train(1)
    jumps = [float((new - old).norm() / old.norm()) for new, old in zip(deltas(session), before, strict=True)]
    assert max(ranks(session)) == 4 and min(jumps) > 1e-3
    assert session.events[3]["jump_max"] == pytest.approx(max(jumps), rel=1e-3)
    assert session.events[3]["jump_mean"] == pytest.approx(sum(jumps) / len(jumps), rel=1e-3)


def test_split_gives_orthonormal_bases_and_equal_branches() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="never")
    session.train(2)
    for layer in session.layers.values():
        eye = torch.eye(4)
        torch.testing.assert_close(layer.Q_B.t() @ layer.Q_B, eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.Q_A.t() @ layer.Q_A, eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.Q_B @ layer.A, layer.B @ layer.Q_A.t(), atol=1e-6, rtol=1e-4)


def test_gradients_are_projections_of_the_dense_gradient() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="never")
    session.train(4)
    dense: dict[str, torch.Tensor] = {}
    for name, layer in session.layers.items():
        layer.gradient_sink = lambda gradient, name=name: dense.__setitem__(name, gradient)
    session.optimizer.zero_grad()
    session.model(**session.batch).loss.backward()
    for name, layer in session.layers.items():
        scale = float(dense[name].abs().max())
        torch.testing.assert_close(layer.A.grad, SCALE * layer.Q_B.t() @ dense[name], atol=1e-5 * scale, rtol=1e-4)
        torch.testing.assert_close(layer.B.grad, SCALE * dense[name] @ layer.Q_A, atol=1e-5 * scale, rtol=1e-4)
        assert layer.Q_A.grad is None and not layer.Q_A.requires_grad


def test_bases_are_constant_without_refreshes_and_the_rank_doubles() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="never")
    session.train(2)
    bases = [layer.Q_A.clone() for layer in session.layers.values()]
    session.train(4)
    assert all(torch.equal(q, layer.Q_A) for q, layer in zip(bases, session.layers.values(), strict=True))
    assert max(ranks(session)) == 8


def test_refresh_gives_rank_r_and_keeps_the_optimizer_state() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="relative", phases=1)
    session.train(3, total_steps=100)  # phases=1: after every step
    assert session.events[3]["refreshed_layers"] == len(session.layers)
    assert 0 < session.events[3]["jump_mean"] <= session.events[3]["jump_max"]
    assert max(ranks(session)) <= 4
    for layer in session.layers.values():
        q_b, r_b = torch.linalg.qr(layer.B.detach())
        signs = torch.sign(r_b.diagonal())
        torch.testing.assert_close(layer.Q_B, q_b * signs, atol=1e-4, rtol=0)
        assert ((layer.Q_A.t() * layer.A).sum(1) > 0).all()
    assert session.cleared == 1 and len(session.optimizer.state) == len(session.trainable())


def test_reported_jump_equals_the_dense_change_of_the_update() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="every")
    session.train(3)
    with torch.no_grad():
        for layer in session.layers.values():  # as after a step: A has changed, the bases have not
            layer.A.add_(0.05 * torch.randn(layer.A.shape, generator=torch.Generator().manual_seed(0)))
    before = deltas(session)
    facts = session.method.after_step(session.layers, 4, 10, session)
    jumps = [float((new - old).norm() / old.norm()) for new, old in zip(deltas(session), before, strict=True)]
    assert facts["jump_max"] == pytest.approx(max(jumps), rel=1e-3)
    assert facts["jump_mean"] == pytest.approx(sum(jumps) / len(jumps), rel=1e-3)


def test_guard_keeps_bases_of_layers_with_short_rows() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="every", guard=1e-2)
    session.train(3)
    with torch.no_grad():
        for layer in session.layers.values():
            layer.A.normal_(generator=torch.Generator().manual_seed(0))
            layer.B.normal_(generator=torch.Generator().manual_seed(1))
        first, second, *_ = session.layers.values()
        first.A[2] *= 0.009 / first.A[2].norm()
        second.B[:, 1] *= 0.011 / second.B[:, 1].norm()
    kept, renewed = first.Q_A.clone(), second.Q_B.clone()
    facts = session.method.after_step(session.layers, 4, 10, session)
    assert facts["skipped_layers"] == 1 and facts["refreshed_layers"] == len(session.layers) - 1
    assert torch.equal(first.Q_A, kept) and not torch.equal(second.Q_B, renewed)


def test_warm_up_counts_optimizer_steps_not_accumulated_batches() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, refresh="never")
    session.train(1, accumulation=4)
    assert not session.method.has_bases
    session.train(1, accumulation=4)
    assert session.method.has_bases


def test_relative_rule_counts_from_the_end_of_the_warm_up() -> None:
    due = [step for step in range(1, 12) if refresh_due("relative", step, 11, 2, 3)]
    assert due == [3, 4, 5, 6, 8, 11]


def test_author_rule_refreshes_every_k_steps_in_phase_k() -> None:
    due = [step for step in range(1, 1001) if refresh_due("author", step, 1000, 10, 5)]
    assert due[0] == 11 and due[:189] == list(range(11, 200))
    for phase, (low, high) in enumerate(((200, 400), (400, 600), (600, 800), (800, 1000)), 2):
        assert [step for step in due if low <= step < high] == [s for s in range(low, high) if s % phase == 0]
    assert len(due) == pytest.approx(450, abs=15)


@pytest.mark.parametrize(("rule", "expected"), [("never", []), ("every", list(range(4, 11)))])
def test_rules_never_and_every(rule: str, expected: list[int]) -> None:
    assert [step for step in range(1, 11) if refresh_due(rule, step, 10, 3, 5)] == expected


def test_runs_shorter_than_the_phases_are_never_refreshed() -> None:
    assert not any([refresh_due(rule, step, 3, 1, 5) for rule in ("author", "relative") for step in (2, 3)])


def test_flat_lora_has_one_branch_and_a_flat_spectrum() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, variant="flat_lora", refresh="every")
    session.train(4)
    for layer, delta in zip(session.layers.values(), deltas(session), strict=True):
        assert not hasattr(layer, "Q_A")
        sigma = torch.linalg.svdvals(delta)
        torch.testing.assert_close(sigma[:4], sigma[:1].expand(4), rtol=1e-4, atol=0)
        assert sigma[4] < 1e-5 * sigma[0]
    assert session.events[4]["jump_max"] > 0
    assert session.events[2]["jump_max"] > 0, "the split flattens too"


def test_flattening_keeps_the_norm_of_the_update() -> None:
    flat, reset = (tiny_session("sds_lora", warmup_steps=2, variant=variant) for variant in ("flat_lora", "reset_lora"))
    flat.train(2)
    reset.train(2)
    for flat_delta, reset_delta in zip(deltas(flat), deltas(reset), strict=True):
        torch.testing.assert_close(flat_delta.norm(), reset_delta.norm(), rtol=1e-4, atol=0)


def test_scaled_bases_keep_the_singular_values() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, variant="scaled_bases", refresh="every")
    session.train(3)
    for layer in session.layers.values():
        torch.testing.assert_close(layer.Q_A, 2 * layer.A.t())
        torch.testing.assert_close(layer.Q_B, 2 * layer.B)
        spectrum = torch.linalg.svdvals(layer.Q_B)
        assert spectrum[0] > 1.2 * spectrum[-1]


def test_variant_scaling_is_the_authors_form() -> None:
    """The split puts the root of Sigma / 2 into bases and factors; a refresh sets bases to Q diag(R) of the factors."""
    session = tiny_session("sds_lora", warmup_steps=2, variant="scaling", refresh="every")
    session.train(2)
    for layer in session.layers.values():
        torch.testing.assert_close(layer.Q_A, layer.A.t(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.Q_B, layer.B, rtol=1e-4, atol=1e-6)
    session.train(1)
    for layer in session.layers.values():
        for basis, factor in ((layer.Q_A, layer.A.t()), (layer.Q_B, layer.B)):
            q, r = torch.linalg.qr(factor.detach())
            torch.testing.assert_close(basis, q * r.diagonal(), rtol=1e-3, atol=1e-5 * float(basis.abs().max()))


@pytest.mark.parametrize("clear_head", [True, False])
def test_clear_head_is_passed_to_the_optimizer(clear_head: bool) -> None:
    session = tiny_session("sds_lora", warmup_steps=2, clear_head=clear_head)
    calls: list[bool] = []
    session.clear_state = lambda head=False: calls.append(head)  # type: ignore[method-assign]
    session.train(4)
    assert calls == [clear_head]


def test_reset_lora_equals_lora_with_cleared_moments() -> None:
    reset, lora = tiny_session("sds_lora", warmup_steps=3, variant="reset_lora"), tiny_session("rslora", alpha=4.0)
    reset.train(3)
    lora.train(3)
    lora.optimizer.state.clear()
    assert reset.train(4) == lora.train(4)


def test_optimizer_state_is_kept_without_clear_state() -> None:
    session = tiny_session("sds_lora", warmup_steps=2, clear_state=False)
    session.train(5)
    assert session.cleared == 0


def test_exported_adapter_has_rank_2r(tmp_path) -> None:
    import json

    session = tiny_session("sds_lora", warmup_steps=2)
    session.train(4)
    export_peft(tmp_path, session.layers, session.method)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == 8 and config["lora_alpha"] / config["r"] == pytest.approx(SCALE)


def test_fifty_steps_equal_a_dense_reference() -> None:
    """One layer trained with SGD on squared error, against dense formulas in fp64."""
    steps, warmup, lr, total = 50, 10, 0.02, 50
    target, x = targets_and_inputs()
    session = single_layer_session(target, x, warmup)
    layer = session.layers["0"]
    a, b = layer.A.detach().double(), layer.B.detach().double()
    q_a = q_b = None
    w0 = layer.weight.detach().double()
    optimizer = torch.optim.SGD([layer.A, layer.B], lr=lr)
    refreshes = 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        ((session.model(x) - target) ** 2).mean().backward()
        optimizer.step()
        events = session.method.after_step(session.layers, step, total, session)

        delta = SCALE * (b @ a if q_a is None else q_b @ a + b @ q_a.t())
        error = x.double() @ (w0 + delta).t() + layer.bias.double() - target.double()
        gradient = 2 / error.numel() * error.t() @ x.double()
        if q_a is None:
            a, b = a - lr * SCALE * b.t() @ gradient, b - lr * SCALE * gradient @ a.t()
        else:
            a, b = a - lr * SCALE * q_b.t() @ gradient, b - lr * SCALE * gradient @ q_a
        if step == warmup:
            u, sigma, vh = torch.linalg.svd(b @ a, full_matrices=False)
            q_b, q_a = u[:, :4], vh[:4].t()
            a, b = 0.5 * sigma[:4, None] * vh[:4], 0.5 * u[:, :4] * sigma[:4]
        elif refresh_due("author", step, total, warmup, 5):
            refreshes += 1
            assert "jump_mean" in events
            q_a, q_b = _signed_qr(a.t()), _signed_qr(b)
        expected = w0 + SCALE * (b @ a if q_a is None else q_b @ a + b @ q_a.t())
        torch.testing.assert_close(session.method.merged_weight(layer).double(), expected, rtol=0, atol=2e-4)
    assert refreshes > 10
    assert (session.method.merged_weight(layer) - layer.weight).norm() > 0.1


def _signed_qr(x: torch.Tensor) -> torch.Tensor:
    q, r = torch.linalg.qr(x)
    return q * torch.sign(r.diagonal())


def targets_and_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return 3 * torch.randn(64, 12, generator=generator), torch.randn(64, 10, generator=generator)


def single_layer_session(target: torch.Tensor, x: torch.Tensor, warmup: int):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(10, 12))
    method = make_method("sds_lora", warmup_steps=warmup, guard=0.0)
    session = Session(model, method, attach(model, method, 0), {}, {})
    session.clear_state = lambda head=False: None
    return session


@pytest.mark.parametrize(
    ("condition", "lora_at_least", "sds_at_most"), [(1, 0, 1e-20), (10, 0, 1e-20), (100, 1e-4, 1e-20)]
)
def test_convergence_does_not_depend_on_the_condition_number(condition, lora_at_least, sds_at_most) -> None:
    """Gradient descent on 1/2 |dW - W*|^2 in fp64, with the formulas of SDS-LoRA written out."""
    lora, sds = final_loss_of_descent(condition, decouple=False), final_loss_of_descent(condition, decouple=True)
    assert lora >= lora_at_least and sds <= sds_at_most


def final_loss_of_descent(
    condition: float, decouple: bool, m: int = 96, n: int = 80, r: int = 8, steps: int = 1000
) -> float:
    from sdsbench.methods.linear_algebra import product_svd, thin_qr

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    spectrum = torch.logspace(0, -math.log10(condition), r, dtype=torch.float64) * 10
    goal = (torch.linalg.qr(draw(m, r))[0] * spectrum) @ torch.linalg.qr(draw(n, r))[0].t()
    scale = 4 / math.sqrt(r)
    a, b = (
        (torch.rand(r, n, generator=generator, dtype=torch.float64) * 2 - 1) / math.sqrt(n),
        torch.zeros(m, r).double(),
    )
    q_a = q_b = None
    for step in range(1, steps + 1):
        lr = 0.03 * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        gradient = scale * (b @ a if q_a is None else q_b @ a + b @ q_a.t()) - goal
        left, right = (b.t(), a.t()) if q_a is None else (q_b.t(), q_a)
        a, b = a - lr * scale * left @ gradient, b - lr * scale * gradient @ right
        if decouple and step == 10:
            u, sigma, v = product_svd(b, a)
            q_b, q_a, a, b = u, v, 0.5 * sigma[:, None] * v.t(), 0.5 * u * sigma
        elif decouple and refresh_due("author", step, steps, 10, 5):
            q_a, q_b = thin_qr(a.t())[0], thin_qr(b)[0]
    return float(0.5 * (scale * (b @ a if q_a is None else q_b @ a + b @ q_a.t()) - goal).square().sum())


def test_loaded_adapter_restores_bases_and_outputs(tmp_path) -> None:
    from sdsbench.methods.export import load_adapter, save_adapter

    session = tiny_session("sds_lora", warmup_steps=2)
    session.train(5)
    save_adapter(tmp_path, session.layers, session.method)
    loaded = tiny_session("sds_lora", warmup_steps=2)
    load_adapter(tmp_path, loaded.layers, loaded.method)
    assert loaded.method.has_bases
    assert torch.equal(logits(loaded.model, session.batch), logits(session.model, session.batch))
