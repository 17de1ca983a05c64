"""AltLoRA against dense least squares in fp64: projections, momentum and turns; and clipping of its gradients."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor

from sdsbench.methods.base import build, lookup
from tests.methods.tiny import Session, tiny_model, tiny_session
from tests.training.test_side_by_side import make_member

BETA1, BETA2 = 0.8, 0.9


def least_squares(held_dr: Tensor, target_dn: Tensor) -> Tensor:
    """argmin_X |held X - target|_F, by a dense least-squares solver."""
    return torch.linalg.lstsq(held_dr, target_dn).solution


def undamped_session(**keys: object) -> Session:
    """A session in fp64 with hardly any damping, so that the closed forms hold."""
    return tiny_session("altlora", dtype=torch.float64, damping=1e-14, betas=[BETA1, BETA2], alpha=12.0, **keys)


def train_one_step(session: Session, lr: float) -> dict[str, Tensor]:
    """Train one step; returns dL/dW_mn of every layer before the step."""
    gradients: dict[str, Tensor] = {}
    for name, layer in session.layers.items():
        layer.gradient_sink = partial(gradients.__setitem__, name)
    session.train(1, lr=lr)
    return gradients


class Reference:
    """AltLoRA on one layer by its definition: dense gradients, least squares, and B moves first."""

    def __init__(self, layer, per_turn: int, second_moment: bool) -> None:
        self.s, self.per_turn, self.second_moment = 12.0 / 4, per_turn, second_moment
        self.factor = {name: getattr(layer, name).detach().clone() for name in "AB"}
        self.momentum: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}
        self.held: dict[str, Tensor] = {}
        self.count = {"A": 0, "B": 0}

    def step(self, step: int, gradient_mn: Tensor, lr: float) -> None:
        moving = "BA"[(step - 1) // self.per_turn % 2]
        if moving == "A":
            held_dr, target_dn = self.s * self.factor["B"], gradient_mn
        else:  # |s X A - G| = |s A^T X^T - G^T|
            held_dr, target_dn = self.s * self.factor["A"].T, gradient_mn.T
        projected_rn = least_squares(held_dr, target_dn)
        previous = self.momentum.get(moving)
        moved_dn = torch.zeros_like(target_dn) if previous is None else self.held[moving] @ previous
        self.momentum[moving] = BETA1 * least_squares(held_dr, moved_dn) + (1 - BETA1) * projected_rn
        self.held[moving] = held_dr
        self.square[moving] = BETA2 * self.square.get(moving, 0) + (1 - BETA2) * projected_rn**2
        self.count[moving] += 1
        direction_rn = self.momentum[moving] / (1 - BETA1 ** self.count[moving])
        if self.second_moment:
            direction_rn = direction_rn / ((self.square[moving] / (1 - BETA2 ** self.count[moving])).sqrt() + 1e-8)
        self.factor[moving] = self.factor[moving] - lr * (direction_rn if moving == "A" else direction_rn.T)


@pytest.mark.parametrize("second_moment", (False, True))
@pytest.mark.parametrize("per_turn", (1, 3))
def test_steps_equal_the_definition(per_turn: int, second_moment: bool) -> None:
    session = undamped_session(steps_per_turn=per_turn, second_moment=second_moment)
    references = {name: Reference(layer, per_turn, second_moment) for name, layer in session.layers.items()}
    lr = 1e-3 if second_moment else 0.1
    for step in range(1, 10):
        gradients = train_one_step(session, lr)
        for name, layer in session.layers.items():
            references[name].step(step, gradients[name], lr)
            for factor in "AB":
                found, expected = getattr(layer, factor).detach(), references[name].factor[factor]
                assert (found - expected).norm() < 1e-5 * expected.norm(), (step, name, factor)


def test_moves_both_equals_the_code_of_sds_lora_author() -> None:
    """Five steps of trainer.py's altlora_step, written out: A moves first, then B at the new A; s is in no step."""
    lr, damping, identity_rr = 1e-3, 1e-6, torch.eye(4, dtype=torch.float64)
    session = tiny_session("altlora", dtype=torch.float64, moves="both", second_moment=True, alpha=12.0)
    factors = {
        name: {key: getattr(layer, key).detach().clone() for key in "AB"} for name, layer in session.layers.items()
    }
    state = {
        n: {k: torch.zeros_like(current[k[-1]]) for k in ("mA", "mB", "vA", "vB", "oA", "oB")}
        for n, current in factors.items()
    }

    def moved_factor(
        step: int, factor_rn: Tensor, held_mr: Tensor, then_mr: Tensor, momentum: Tensor, square: Tensor, g: Tensor
    ):
        inverse_rr = torch.linalg.inv(held_mr.T @ held_mr + damping * identity_rr)
        scaled = inverse_rr @ g
        square = 0.999 * square + 0.001 * scaled**2
        root = (square / (1 - 0.999**step)).sqrt() + 1e-8
        direction = 0.9 * inverse_rr @ held_mr.T @ then_mr @ momentum + 0.1 * scaled
        return factor_rn - lr / (1 - 0.9**step) * direction / root, 0.9 * momentum + 0.1 * scaled, square

    for step in range(1, 6):
        gradients = train_one_step(session, lr)
        for name, layer in session.layers.items():
            current, previous, g_mn = factors[name], state[name], 3.0 * gradients[name]
            ga_rn, gb_mr = current["B"].T @ g_mn, g_mn @ current["A"].T
            a_rn, previous["mA"], previous["vA"] = moved_factor(
                step, current["A"], current["B"], previous["oB"], previous["mA"], previous["vA"], ga_rn
            )
            turned = (previous["oA"].T, previous["mB"].T, previous["vB"].T, gb_mr.T)
            b_rm, momentum_rm, square_rm = moved_factor(step, current["B"].T, a_rn.T, *turned)
            previous |= {"mB": momentum_rm.T, "vB": square_rm.T, "oB": current["B"], "oA": a_rn}
            current |= {"A": a_rn, "B": b_rm.T}
            for key in "AB":
                torch.testing.assert_close(getattr(layer, key).detach(), current[key], rtol=1e-6, atol=1e-10)


def test_weight_moves_along_the_projected_gradient() -> None:
    """W moves by -eta G P_A when B moves and by -eta P_B G when A moves, for every alpha."""
    for alpha in (2.0, 40.0):
        session = tiny_session("altlora", dtype=torch.float64, damping=1e-14, betas=[0.0, 0.999], alpha=alpha)
        lr = 0.1
        for step in (1, 2, 3, 4):
            before = {name: session.method.delta(layer).detach() for name, layer in session.layers.items()}
            held = {n: (layer.A if step % 2 else layer.B.T).detach().clone() for n, layer in session.layers.items()}
            gradients = train_one_step(session, lr)
            for name, layer in session.layers.items():
                projector = torch.linalg.pinv(held[name]) @ held[name]
                g_mn = gradients[name]
                expected_mn = -lr * (g_mn @ projector if step % 2 else projector @ g_mn)
                change_mn = session.method.delta(layer).detach() - before[name]
                assert (change_mn - expected_mn).norm() < 1e-5 * expected_mn.norm(), (step, name)


@pytest.mark.parametrize("per_turn", (1, 3))
def test_one_factor_moves_at_a_time_and_b_first(per_turn: int) -> None:
    session = tiny_session("altlora", steps_per_turn=per_turn)
    for step in range(1, 4 * per_turn + 1):
        before = {name: (layer.A.detach().clone(), layer.B.detach().clone()) for name, layer in session.layers.items()}
        session.train(1)
        moves_b = (step - 1) // per_turn % 2 == 0
        for name, layer in session.layers.items():
            assert torch.equal(layer.A, before[name][0]) == moves_b
            assert torch.equal(layer.B, before[name][1]) != moves_b


def test_steps_are_counted_for_each_factor() -> None:
    method = build(lookup("altlora")[1](name="altlora", steps_per_turn=2))
    found = [method.turn(step) for step in range(1, 9)]
    assert [moving for moving, _, _ in found] == list("BBAABBAA")
    assert [count for _, _, count in found] == [1, 2, 1, 2, 3, 4, 3, 4]
    assert all({moving, resting} == {"A", "B"} for moving, resting, _ in found)


def test_state_is_as_large_as_that_of_lora_under_adam() -> None:
    """The momentum and the previous values of the other factor: r(m + n) numbers each."""
    session = tiny_session("altlora")
    for layer in session.layers.values():
        m, n = layer.shape
        assert sum(buffer.numel() for buffer in layer.buffers()) == 2 * 4 * (m + n)
        assert set(layer.method_tensors()) == {"A", "B"}, "saved adapters hold none of the state"


def test_clipping_uses_the_norm_of_the_raw_gradient() -> None:
    """The norm that is compared with train.clip_norm equals LoRA's at the same weights."""
    norms, moved = {}, {}
    for name, clip_norm in (("lora", None), ("altlora", None), ("altlora", 0.01)):
        run = make_member(tiny_model("decoder"), name, seed=0, lr=0.1)
        config = run.training.config.model_copy(update={"clip_norm": clip_norm})
        norms[name, clip_norm] = dataclasses.replace(run.training, config=config).step(run.state).grad_norm
        moved[name, clip_norm] = torch.cat([layer.B.detach().flatten() for layer in run.state.layers.values()])
    raw = norms["lora", None]
    assert norms == {("lora", None): raw, ("altlora", None): raw, ("altlora", 0.01): raw}
    expected = moved["altlora", None] * 0.01 / raw
    torch.testing.assert_close(moved["altlora", 0.01], expected, rtol=1e-4, atol=1e-9)
