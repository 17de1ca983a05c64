"""The theory bench compared with reference values, a hand-written descent, and closed-form floors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdsbench.methods.base import lookup
from sdsbench.studies.theory.descent import descend
from sdsbench.studies.theory.problems import LinearProblem, Setting, make
from sdsbench.training.training_config import TrainConfig

REFERENCE = {  # method: log10 of the final loss at condition number 1, 10, 100 (m 96, n 80, r 8, s sqrt 2)
    "rslora": (-29, math.log10(6e-13), math.log10(2.4e-2)),
    "sds_lora": (-28, math.log10(5e-29), math.log10(3e-29)),
}


def train_config(lr: float, steps: int, optimizer: str = "sgd", schedule: str = "constant") -> TrainConfig:
    return TrainConfig(lr=lr, max_steps=steps, optimizer=optimizer, schedule=schedule)


def method_config(name: str, rank: int, **keys: object):
    return lookup(name)[1](name=name, rank=rank, **keys)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", REFERENCE)
def test_final_losses_equal_the_reference_values(name: str) -> None:
    """The reference's LoRA has s = alpha / sqrt r, so its forward pass and descent are those of rsLoRA."""
    problems = [make(Setting(m=96, n=80, rank=8, condition=kappa), seed=0) for kappa in (1, 10, 100)]
    curves = descend(problems, method_config(name, 8, alpha=4.0), train_config(0.03, 1000, schedule="cosine"))
    found = np.log10(curves.loss_Tp[-1])
    tolerance = np.where(np.array(REFERENCE[name]) < -25, 1.5, 1.0)  # rounding level, or an order of magnitude
    assert (np.abs(found - REFERENCE[name]) < tolerance).all(), found


def test_lora_equals_a_hand_written_descent() -> None:
    problem = make(Setting(kind="regression", condition=10, noise=0.1), seed=3)
    curves = descend([problem], method_config("lora", 4, alpha=8.0), train_config(1e-3, 20))
    from sdsbench.methods.attach import layer_generator
    from sdsbench.methods.initial import kaiming_uniform

    a = kaiming_uniform(4, 20, layer_generator(0, "problem0")).double()
    b = torch.zeros(24, 4, dtype=torch.float64)
    for _ in range(20):
        output = problem.x_tn @ (problem.base_mn + 2 * b @ a).T
        gradient = problem.residual(output).T @ problem.x_tn
        a, b = a - 1e-3 * 2 * b.T @ gradient, b - 1e-3 * 2 * gradient @ a.T
    expected = problem.loss(problem.x_tn @ (problem.base_mn + 2 * b @ a).T)
    assert curves.loss_Tp[-1, 0] == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("name", ["lora", "pissa", "lora_xs", "lora_sb", "full_ft", "sds_lora"])
@pytest.mark.parametrize("kind", ["factorisation", "regression"])
def test_floor_is_reached_and_never_undercut(name: str, kind: str) -> None:
    problem = make(Setting(kind=kind, condition=2, noise=0.3, size=3), seed=1)
    keys = {"eta": "paper"} if name == "lora_sb" else {"svd": "exact"} if name in ("pissa", "lora_xs") else {}
    method = lookup(name)[1](name=name, **({} if name == "full_ft" else {"rank": 4, "alpha": 4.0, **keys}))
    curves = descend([problem], method, train_config(0.05, 1500, "sgd", "cosine"))
    excess = curves.excess_Tp[:, 0]
    assert excess.min() > -1e-9 * curves.loss_Tp[0, 0]
    if name != "sds_lora":  # the floor of SDS-LoRA is only a lower bound
        assert excess[-1] < 1e-2 * excess[0]


@pytest.mark.parametrize("kind", ["factorisation", "regression"])
def test_floor_of_two_branches_equals_that_of_twice_the_rank(kind: str) -> None:
    """SDS-LoRA has two branches of rank r. The target has rank 8, so every direction matters."""

    def floor(name: str, rank: int) -> float:
        problem = make(Setting(kind=kind, rank=8, condition=10, noise=0.1), seed=1)
        return float(descend([problem], method_config(name, rank), train_config(1e-9, 1)).floor_p[0])

    assert floor("sds_lora", 2) == pytest.approx(floor("lora", 4), rel=1e-9)
    assert floor("lora", 4) < 0.9 * floor("lora", 2)


def test_floors_equal_the_closed_form() -> None:
    """Without noise and with identity input, the floor is half the sum of squares of the remaining singular values."""
    problem = make(Setting(rank=6, condition=10), seed=0)
    sigma = torch.linalg.svdvals(problem.y_tm.T - problem.base_mn)
    for name, rank, width in (("lora", 3, 3), ("sds_lora", 2, 4), ("rslora", 5, 5)):
        found = descend([problem], method_config(name, rank), train_config(1e-9, 1)).floor_p[0]
        assert found == pytest.approx(0.5 * float(sigma[width:].square().sum()), rel=1e-9), name


def test_diverging_problem_does_not_affect_the_others() -> None:
    calm, wild = make(Setting(), seed=0), make(Setting(size=1e5), seed=1)
    for name in ("lora", "lora_pro", "sds_lora", "preconditioned_lora"):
        keys = {"alpha": 4.0}
        together = descend([calm, wild], method_config(name, 4, **keys), train_config(0.02, 60))
        alone = descend([calm], method_config(name, 4, **keys), train_config(0.02, 60))
        if name == "lora":
            assert np.isinf(together.loss_Tp[-1, 1])
        assert np.allclose(together.loss_Tp[:, 0], alone.loss_Tp[:, 0], rtol=1e-6)


def test_problem_has_the_requested_condition_number() -> None:
    problem: LinearProblem = make(Setting(condition=1000, rank=5), seed=2)
    sigma = torch.linalg.svdvals(problem.y_tm.T - problem.base_mn)[:5]
    assert float(sigma[0] / sigma[-1]) == pytest.approx(1000, rel=1e-9)
