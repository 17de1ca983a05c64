"""SDS-LoRA, LoRA-SB, LoRA-XS, PiSSA, LoRA-GA and DoRA against what their authors' code made of the same inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sdsbench.methods.gradients import summed_gradients
from sdsbench.methods.linear_algebra import randomised_svd
from sdsbench.methods.weight_svd import balanced_factors
from sdsbench.training.training_config import TrainConfig
from tests.methods.replay import Replay, authors, largest_difference, names_of
from tests.methods.tiny import Context

COSINE = {"lr": 7e-4, "schedule": "cosine", "max_steps": 30}


def test_one_stage_of_sds_lora() -> None:
    """30 steps: warm-up, split, refreshes by the author's rule and guard."""
    config = TrainConfig(**COSINE, clip_norm=None)
    replay = Replay("sds_lora", "sds_lora", config, alpha=4.0, warmup_steps=10, guard=1e-2)
    replay.put(A="A0", B="B0")
    renewed = follow(replay, "", 30)
    for name in replay.names:
        assert renewed[name] == replay.tensors[f"{name}.new_bases_after_step"].tolist()


def test_two_stages_of_sds_lora() -> None:
    """50 steps at a constant rate that only find bases, then the run from A = B = 0 with them."""
    config = TrainConfig(**COSINE, clip_norm=1.0)
    replay = Replay("sds_lora", "sds_lora", config, alpha=4.0, warmup_steps=10, guard=1e-2, pre_steps=50)
    replay.put(A="A0", B="B0")
    facts = replay.method.prepare(replay.layers, _PreStage(replay))  # type: ignore[arg-type]
    assert facts == {"pre_steps": 50.0}
    for name, layer in replay.layers.items():
        assert largest_difference(*signed(layer.Q_B, replay.tensors[f"{name}.pre.Q_B"][-1])) < 1e-4
        assert largest_difference(*signed(layer.Q_A, replay.tensors[f"{name}.pre.Q_A"][-1])) < 1e-4
        assert not layer.A.any() and not layer.B.any()
    renewed = follow(replay, "after_pre.", 30)
    for name in replay.names:
        assert renewed[name] == replay.tensors[f"{name}.after_pre.new_bases_after_step"].tolist()


class _PreStage:
    """The DataContext of a replay: its constant-rate steps have the gradients of the first stage."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def train_at_constant_rate(self, steps: int, after_step: Callable[[int, Any], None]) -> None:
        optimizer = self.replay.state.optimizer
        norms = self.replay.tensors["pre.raw_norm"]
        renewed: list[int] = []
        for step in range(1, steps + 1):
            self.replay.backward(step, "pre.G")
            assert optimizer.clip(1.0) == pytest.approx(float(norms[step - 1]), rel=1e-3)
            optimizer.step(1.0)
            before = {name: (layer.A.clone(), layer.B.clone()) for name, layer in self.replay.layers.items()}
            after_step(step, optimizer)
            if not any(layer.B.any() for layer in self.replay.layers.values()):
                self._compare(len(renewed), before)
                renewed.append(step)
        for name in self.replay.names:
            assert renewed == self.replay.tensors[f"{name}.pre.new_bases_after_step"].tolist()
        optimizer.clear_state(head=True)

    def _compare(self, time: int, before: dict[str, tuple[Tensor, Tensor]]) -> None:
        """The bases that were found, from what, and that training goes on at A = B = 0."""
        for name, layer in self.replay.layers.items():
            of = lambda key: self.replay.tensors[f"{name}.pre.{key}"][time]  # noqa: B023, E731
            (a_rn, b_mr) = before[name]
            assert largest_difference(*signed(a_rn.t(), of("A_before").t())) < 1e-3
            assert largest_difference(*signed(b_mr, of("B_before"))) < 1e-3
            assert largest_difference(*signed(layer.Q_A, of("Q_A"))) < 1e-3
            assert largest_difference(*signed(layer.Q_B, of("Q_B"))) < 1e-3
            assert torch.equal(layer.A.detach(), of("A")) and torch.equal(layer.B.detach(), of("B"))


def follow(replay: Replay, series: str, steps: int) -> dict[str, list[int]]:
    """Train on the file's gradients and hold every step to the series; the steps after which bases changed."""
    renewed: dict[str, list[int]] = {name: [] for name in replay.names}
    split: Any = replay.method._split  # type: ignore[attr-defined]

    def look(layers: Any) -> None:
        for name, layer in layers.items():
            a_rn, b_mr = (replay.tensors[f"{name}.{series}{own}_before_split"] for own in "AB")
            assert largest_difference(*signed(layer.A.detach().t(), a_rn.t())) < 1e-3
            assert largest_difference(*signed(layer.B.detach(), b_mr)) < 1e-3
        split(layers)

    replay.method._split = look  # type: ignore[attr-defined]
    for step in range(1, steps + 1):
        before = {name: layer.Q_B.clone() for name, layer in replay.layers.items()}
        replay.backward(step)
        report = replay.update()
        assert report.lr == pytest.approx(float(replay.tensors["lr"][step - 1]), rel=1e-5)
        assert report.grad_norm == pytest.approx(float(replay.tensors[f"{series}raw_norm"][step - 1]), rel=1e-3)
        for name, layer in replay.layers.items():
            if not torch.equal(before[name], layer.Q_B):
                renewed[name].append(step)
            delta = replay.method.delta(layer)
            at = {own: replay.tensors[f"{name}.{series}{own}"][step - 1] for own in ("A", "B", "Q_A", "Q_B")}
            two = at["Q_B"].any()
            expected = 2.0 * (at["Q_B"] @ at["A"] + at["B"] @ at["Q_A"].t() if two else at["B"] @ at["A"])
            assert largest_difference(delta, expected) < 2e-4, (name, step)
    return renewed


def signed(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """`found` with each column's sign as expected: singular vectors are determined up to it."""
    sign = torch.sign((found * expected).sum(0))
    return found * sign, expected


class _Gradients(Context):
    """A DataContext whose rows have the file's gradients."""

    replay: Replay

    def summed_gradients(
        self, layers: Any, rows: int, batch: int = 1, dropout: bool = False, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        def run_backward() -> None:
            for first in range(0, rows, batch):
                for name, layer in layers.items():
                    part = self.replay.tensors[f"{name}.row_gradients"][first : first + batch]
                    gradient_mn = part.mean(0) / len(part)
                    (layer(torch.eye(layer.in_features)) * gradient_mn.t()).sum().backward()

        return summed_gradients(layers, run_backward, dtype)


def started_lora_sb(**keys: Any) -> Replay:
    train = TrainConfig(lr=2e-4, schedule="constant", clip_norm=None, weight_decay=0.01)
    replay = Replay("lora_sb", "lora_sb", train, samples=5, eta=3e-4, **keys)
    context = _Gradients(lambda: None)
    context.replay = replay
    facts = replay.method.prepare(replay.layers, context)
    assert facts["eta"] == 3e-4 == pytest.approx(float(replay.tensors["eta"]))
    replay.state.optimizer.refresh_masters()
    return replay


def test_lora_sb_starts_as_its_authors_do() -> None:
    replay = started_lora_sb(svd="exact")
    for name, layer in replay.layers.items():
        of = lambda key: replay.tensors[f"{name}.exact.{key}"]  # noqa: B023, E731
        assert largest_difference(replay.method.delta(layer), of("delta")) < 1e-5
        assert largest_difference(layer.R.diag(), of("R").diag()) < 1e-5
    kept = [float(replay.tensors[f"{name}.exact.captured"][0]) for name in replay.names]
    again = started_lora_sb(svd="authors", factor_dtype="bfloat16")
    for name, layer in again.layers.items():
        step_mn = again.tensors[f"{name}.step"]
        share = 1 - float((again.method.delta(layer).detach() - step_mn).square().sum() / step_mn.square().sum())
        assert share == pytest.approx(float(again.tensors[f"{name}.authors.captured"][1]), abs=0.01)
        for tensor in (layer.A, layer.B, layer.R):
            assert torch.equal(tensor, tensor.bfloat16().float()), "the authors round all three"
        assert all(again.method.scale() == again.tensors[f"{name}.{kind}.scale"] for kind in ("exact", "authors"))
    again.put(A="authors.A", B="authors.B", R="authors.R")
    for name, layer in again.layers.items():
        assert largest_difference(again.method.delta(layer), again.tensors[f"{name}.authors.delta"]) < 1e-5
    assert all(0 < share < 1 for share in kept)


def test_lora_sb_s_fast_start_is_its_authors_from_their_random_draw() -> None:
    """Seed 42, one draw that nobody uses, then svd_lowrank; rounded to bf16, where a tie may fall otherwise."""
    tensors = authors("lora_sb")
    for name in names_of(tensors):
        step_mn = tensors[f"{name}.step"]
        generator = torch.Generator().manual_seed(42)
        torch.randn(step_mn.shape[0], 4, generator=generator)
        u_mr, s_r, v_nr = drawn_as_torch(step_mn, 4, generator, 0, 10)
        a, b, r = (tensors[f"{name}.authors.{own}"] for own in "ABR")
        for found, expected in ((u_mr, b), (v_nr, a.t()), (s_r.diag(), r)):
            rounded, expected = signed(found.bfloat16().float(), expected)
            assert largest_difference(rounded, expected) < 2**-7
            assert float((rounded == expected).float().mean()) > 0.98


def drawn_as_torch(
    matrix_mn: Tensor, rank: int, generator: torch.Generator, oversampling: int, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`randomised_svd` from the random start of torch.svd_lowrank, which works on the transpose of a wide matrix."""
    if matrix_mn.shape[0] >= matrix_mn.shape[1]:
        return randomised_svd(matrix_mn, rank, generator, oversampling, iterations)
    v_nr, s_r, u_mr = randomised_svd(matrix_mn.t(), rank, generator, oversampling, iterations)
    return u_mr, s_r, v_nr


def test_lora_sb_sums_batches_as_its_authors_do() -> None:
    """Loaders of 3 rows: a row of a whole batch weighs 1/9, one of the last two 1/4."""
    replay = started_lora_sb(svd="exact", gradient_batch=3)
    for name, layer in replay.layers.items():
        u, s, vh = torch.linalg.svd(replay.tensors[f"{name}.step_batches_of_3"])
        best = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
        assert largest_difference(replay.method.delta(layer), best) < 1e-4


def test_lora_sb_sums_in_bf16_as_its_authors_do() -> None:
    """Row gradients are rounded and added in bf16, which cancels some entries; eta is rounded with the signs."""
    replay = started_lora_sb(svd="exact", gradient_dtype="bfloat16")
    for name, layer in replay.layers.items():
        u, s, vh = torch.linalg.svd(replay.tensors[f"{name}.bf16.step"])
        best = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
        assert largest_difference(replay.method.delta(layer), best) < 1e-5
    assert not replay.tensors["layer1.bf16.step"].all(), "an entry that cancels, or the test says less"


@pytest.mark.parametrize("kind", ["exact", "authors"])
def test_lora_sb_trains_as_its_authors_do(kind: str) -> None:
    replay = started_lora_sb(svd="exact").put(A=f"{kind}.A", B=f"{kind}.B", R=f"{kind}.R")
    for step in range(1, 6):
        replay.backward(step, "train_gradients")
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R.grad, replay.tensors[f"{name}.{kind}.R_gradients"][step - 1]) < 1e-5
        replay.update()
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R, replay.tensors[f"{name}.{kind}.R_steps"][step - 1]) < 1e-5


def test_lora_sb_trains_in_bf16_as_its_authors_do() -> None:
    """R, its gradients and Adam's moments in bf16, rounded at every operation: bit by bit."""
    replay = started_lora_sb(svd="exact", r_dtype="bfloat16").put(A="bf16.A", B="bf16.B", R="bf16.R")
    replay.state.optimizer.refresh_masters()
    for step in range(1, 6):
        replay.state.optimizer.zero_grad()
        for name, layer in replay.layers.items():
            (layer.R * replay.tensors[f"{name}.bf16.R_gradients"][step - 1]).sum().backward()
        replay.update()
        for name, layer in replay.layers.items():
            assert torch.equal(layer.R.detach(), replay.tensors[f"{name}.bf16.R_steps"][step - 1])


def test_the_authors_eta() -> None:
    """Batches of the gradient loader over the warm-up: 3.00e-7 for math, 2.93e-6 for commonsense, as published."""
    for rows, batch, epochs, lr, printed in ((50_000, 3, 1, 1e-4, 3.00e-7), (170_420, 10, 2, 2e-3, 2.93e-6)):
        context = Context(lambda: None, train_rows=rows, warmup_ratio=0.02, epochs=epochs, learning_rate=lr)
        method = Replay("lora_sb", "lora_sb", eta="code", gradient_batch=batch).method
        assert method._eta(context) == pytest.approx(printed, rel=2e-3)  # type: ignore[attr-defined]


def test_lora_xs_is_its_authors() -> None:
    train = TrainConfig(lr=4e-3, schedule="constant", clip_norm=None)
    replay = Replay("lora_xs", "lora_xs", train, alpha=8.0)
    generator = torch.Generator().manual_seed(5)
    for name, layer in replay.layers.items():
        torch.empty(4, 4).uniform_(generator=generator)  # a linear layer's own start, which theirs replaces
        replay.method.create(layer, generator)
        assert largest_difference(layer.R, replay.tensors[f"{name}.R_start"]) < 1e-6, "their draw"
        assert replay.method.scale() == replay.tensors[f"{name}.scale"]
    replay = Replay("lora_xs", "lora_xs", train, alpha=8.0)
    for name, layer in replay.layers.items():
        assert largest_difference(layer.B @ layer.A, replay.tensors[f"{name}.B"] @ replay.tensors[f"{name}.A"]) < 1e-5
    replay.put(A="A", B="B", R="R")
    for name, layer in replay.layers.items():
        assert largest_difference(replay.method.delta(layer), replay.tensors[f"{name}.delta"]) < 1e-5
        assert largest_difference(layer(replay.tensors[f"{name}.x"]), replay.tensors[f"{name}.y"]) < 1e-5
    for step in range(1, 6):
        replay.backward(step, "train_gradients")
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R.grad, replay.tensors[f"{name}.R_gradients"][step - 1]) < 1e-5
        replay.update()
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R, replay.tensors[f"{name}.R_steps"][step - 1]) < 1e-5


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(("svd", "niter"), [("exact", 4), ("fast", 4), ("fast", 16)])
def test_pissa_is_peft(svd: str, niter: int, scale: int) -> None:
    """s = 1 as its authors run it, 2 as SDS-LoRA's does. The fast SVD's start differs, and so what little it misses."""
    replay = Replay("pissa", "pissa", alpha=4.0 * scale, svd=svd, svd_iterations=niter)
    assert replay.method.scale() == scale
    kind = "exact" if svd == "exact" else f"niter_{niter}"
    for name, layer in replay.layers.items():
        found = replay.tensors[f"{name}.W0"] - scale * layer.B_initial @ layer.A_initial
        captured = 1 - float(found.square().sum() / replay.tensors[f"{name}.W0"].square().sum())
        assert captured == pytest.approx(
            float(replay.tensors[f"{name}.{kind}.scale{scale}.captured"][0]), abs=0.3 / niter**2
        )
        if svd == "exact":
            assert largest_difference(found, replay.tensors[f"{name}.exact.scale1.residual"]) < 1e-5
            a, b = (replay.tensors[f"{name}.exact.scale{scale}.{own}"] for own in "AB")
            assert largest_difference(*signed(layer.A_initial.t(), a.t())) < 1e-4
            assert largest_difference(*signed(layer.B_initial, b)) < 1e-4


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("niter", [4, 16])
def test_the_fast_start_of_pissa_is_peft_s_from_its_random_draw(niter: int, scale: int) -> None:
    tensors = authors("pissa")
    for name in names_of(tensors):
        weight_mn = tensors[f"{name}.W0"]
        triples = drawn_as_torch(weight_mn, 4, torch.Generator().manual_seed(21), 0, niter)
        b_mr, a_rn = balanced_factors(triples, float(scale))
        a, b = (tensors[f"{name}.niter_{niter}.scale{scale}.{own}"] for own in "AB")
        assert largest_difference(*signed(a_rn.t(), a.t())) < 1e-5
        assert largest_difference(*signed(b_mr, b)) < 1e-5
        if scale == 1:
            assert largest_difference(weight_mn - b_mr @ a_rn, tensors[f"{name}.niter_{niter}.scale1.residual"]) < 1e-5


@pytest.mark.parametrize("gamma", [16, 512])
def test_lora_ga_is_its_authors(gamma: int) -> None:
    replay = Replay("lora_ga", "lora_ga", alpha=4.0, gamma=float(gamma), svd_iterations=30)
    context = Context(lambda: None)
    context.summed_gradients = lambda layers, rows, *_: {  # type: ignore[method-assign]
        name: replay.tensors[f"{name}.gradient"] for name in layers
    }
    replay.method.prepare(replay.layers, context)
    for name, layer in replay.layers.items():
        a, b = (replay.tensors[f"{name}.exact.gamma{gamma}.{own}"] for own in "AB")
        assert largest_difference(*signed(layer.A.detach().t(), a.t())) < 1e-3
        assert largest_difference(*signed(layer.B.detach(), b)) < 1e-3
        assert math.isclose(replay.method.scale(), 2.0)
        seeded = [replay.tensors[f"{name}.seeded.gamma{gamma}.{own}"] for own in "AB"]
        base = replay.tensors[f"{name}.W0"] - 2.0 * seeded[1] @ seeded[0]
        if gamma == 16:
            assert largest_difference(base, replay.tensors[f"{name}.seeded.gamma16.base"]) < 1e-5
        assert largest_difference(*signed(layer.A.detach().t(), seeded[0].t())) < 2e-3, "svd_lowrank's own draw"
        assert largest_difference(*signed(layer.B.detach(), seeded[1])) < 2e-3
        if gamma == 16:
            base = layer.weight - 2.0 * signed(layer.B_initial, b)[0] @ signed(layer.A_initial.t(), a.t())[0].t()
            assert largest_difference(base, replay.tensors[f"{name}.exact.gamma16.base"]) < 1e-4


@pytest.mark.parametrize("gamma", [16, 512])
def test_lora_ga_starts_as_its_authors_from_their_random_draw(gamma: int) -> None:
    """Of the last layer, which is wide, torch takes the transpose, and so another draw."""
    replay = Replay("lora_ga", "lora_ga", alpha=4.0, gamma=float(gamma))
    for number, (name, layer) in enumerate(replay.layers.items()):
        context = Context(lambda: None)
        context.generator = torch.Generator().manual_seed(11 + number)
        context.summed_gradients = lambda *_: {name: replay.tensors[f"{name}.gradient"]}  # type: ignore[method-assign] # noqa: B023
        replay.method.prepare({name: layer}, context)
        tolerance = 1e-5 if layer.out_features >= layer.in_features else 2e-3
        a, b = (replay.tensors[f"{name}.seeded.gamma{gamma}.{own}"] for own in "AB")
        assert largest_difference(*signed(layer.A.detach().t(), a.t())) < tolerance
        assert largest_difference(*signed(layer.B.detach(), b)) < tolerance


def test_dora_is_peft_and_its_authors() -> None:
    """Outputs and gradients at a generic state (peft's and DoRA's own class), then five steps without decay."""
    train = TrainConfig(lr=5e-3, schedule="constant", clip_norm=None)
    replay = Replay("dora", "dora", train, alpha=8.0).put(A="generic.A", B="generic.B", magnitude="generic.magnitude")
    for name, layer in replay.layers.items():
        of = lambda key: replay.tensors[f"{name}.{key}"]  # noqa: B023, E731
        x = of("x")[0].clone().requires_grad_()
        y = layer(x)
        y.backward(of("dy")[0])
        for code in ("generic", "generic.authors"):
            found = {"y": y, "dx": x.grad, "dA": layer.A.grad, "dB": layer.B.grad, "dmagnitude": layer.magnitude.grad}
            for key, value in found.items():
                assert largest_difference(value, of(f"{code}.{key}")) < 1e-5, (code, key)
        assert largest_difference(replay.method.merged_weight(layer), of("generic.merged")) < 1e-5


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_dora_trains_as_peft(decay: float) -> None:
    """Five steps from B = 0, with outputs and gradients on the way; peft decays magnitudes too."""
    train = TrainConfig(lr=5e-3, schedule="constant", clip_norm=None, weight_decay=decay, decay_vectors=True)
    replay = Replay("dora", "dora", train, alpha=8.0).put(A="A0", magnitude="magnitude0")
    for name, layer in replay.layers.items():
        assert largest_difference(layer(replay.tensors[f"{name}.x"][0]), replay.tensors[f"{name}.start.y"]) < 1e-5
    for step in range(1, 6):
        replay.state.optimizer.zero_grad()
        for name, layer in replay.layers.items():
            x = replay.tensors[f"{name}.x"][step - 1].clone().requires_grad_()
            y = layer(x)
            y.backward(replay.tensors[f"{name}.dy"][step - 1])
            if decay == 0 and step in (1, 4):
                found = {
                    "y": y,
                    "dx": x.grad,
                    "dA": layer.A.grad,
                    "dB": layer.B.grad,
                    "dmagnitude": layer.magnitude.grad,
                }
                for key, value in found.items():
                    expected = replay.tensors[f"{name}.step{step}.{key}"]
                    assert (value - expected).abs().max() <= 1e-5 * max(1e-3, float(expected.abs().max())), key
        replay.update()
        assert replay.worst(f"decay{decay:g}", step, "A", "B", "magnitude") < 1e-5


def test_the_fast_svd_finds_what_torch_finds() -> None:
    """Same algorithm as torch.svd_lowrank: as much of a matrix is captured, from another random start."""
    weight_mn = authors("pissa")["layer1.W0"]
    u, s, v = randomised_svd(weight_mn, 4, torch.Generator().manual_seed(0), 0, 16)
    share = float((u * s @ v.t()).square().sum() / weight_mn.square().sum())
    assert share == pytest.approx(float(authors("pissa")["layer1.niter_16.scale1.captured"][0]), abs=1e-3)
