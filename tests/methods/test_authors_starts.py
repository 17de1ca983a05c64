"""SDS-LoRA, LoRA-SB, LoRA-XS, PiSSA, LoRA-GA and DoRA against recorded results of their authors' code."""

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
from tests.methods.replay import Replay, largest_difference, layer_names, recorded_tensors
from tests.methods.tiny import Context

COSINE = {"lr": 7e-4, "schedule": "cosine", "max_steps": 30}


def test_one_stage_of_sds_lora_equals_its_authors() -> None:
    """30 steps: warm-up, split, and refreshes by the author's rule and guard."""
    config = TrainConfig(**COSINE, clip_norm=None)
    replay = Replay("sds_lora", "sds_lora", config, alpha=4.0, warmup_steps=10, guard=1e-2)
    replay.set_values(A="A0", B="B0")
    changed_at = train_and_compare(replay, "", 30)
    for name in replay.names:
        assert changed_at[name] == replay.tensors[f"{name}.new_bases_after_step"].tolist()


def test_two_stages_of_sds_lora_equal_their_authors() -> None:
    """50 steps at a constant rate find bases, with which the run then starts from A = B = 0."""
    config = TrainConfig(**COSINE, clip_norm=1.0)
    replay = Replay("sds_lora", "sds_lora", config, alpha=4.0, warmup_steps=10, guard=1e-2, pre_steps=50)
    replay.set_values(A="A0", B="B0")
    facts = replay.method.prepare(replay.layers, FirstStage(replay))  # type: ignore[arg-type]
    assert facts == {"pre_steps": 50.0}
    for name, layer in replay.layers.items():
        assert largest_difference(*aligned(layer.Q_B, replay.tensors[f"{name}.pre.Q_B"][-1])) < 1e-4
        assert largest_difference(*aligned(layer.Q_A, replay.tensors[f"{name}.pre.Q_A"][-1])) < 1e-4
        assert not layer.A.any() and not layer.B.any()
    changed_at = train_and_compare(replay, "after_pre.", 30)
    for name in replay.names:
        assert changed_at[name] == replay.tensors[f"{name}.after_pre.new_bases_after_step"].tolist()


class FirstStage:
    """A DataContext whose training at a constant rate uses the recorded gradients of the first stage."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def train_at_constant_rate(self, steps: int, after_step: Callable[[int, Any], None]) -> None:
        optimizer = self.replay.state.optimizer
        norms = self.replay.tensors["pre.raw_norm"]
        changed_at: list[int] = []
        for step in range(1, steps + 1):
            self.replay.backward(step, "pre.G")
            assert optimizer.clip(1.0) == pytest.approx(float(norms[step - 1]), rel=1e-3)
            optimizer.step(1.0)
            before = {name: (layer.A.clone(), layer.B.clone()) for name, layer in self.replay.layers.items()}
            after_step(step, optimizer)
            if not any(layer.B.any() for layer in self.replay.layers.values()):
                self._compare(len(changed_at), before)
                changed_at.append(step)
        for name in self.replay.names:
            assert changed_at == self.replay.tensors[f"{name}.pre.new_bases_after_step"].tolist()
        optimizer.clear_state(head=True)

    def _compare(self, time: int, before: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Compare the factors before new bases, the new bases, and A = B = 0 after them."""
        for name, layer in self.replay.layers.items():
            recorded = lambda key: self.replay.tensors[f"{name}.pre.{key}"][time]  # noqa: B023, E731
            (a_rn, b_mr) = before[name]
            assert largest_difference(*aligned(a_rn.t(), recorded("A_before").t())) < 1e-3
            assert largest_difference(*aligned(b_mr, recorded("B_before"))) < 1e-3
            assert largest_difference(*aligned(layer.Q_A, recorded("Q_A"))) < 1e-3
            assert largest_difference(*aligned(layer.Q_B, recorded("Q_B"))) < 1e-3
            assert torch.equal(layer.A.detach(), recorded("A")) and torch.equal(layer.B.detach(), recorded("B"))


def train_and_compare(replay: Replay, series: str, steps: int) -> dict[str, list[int]]:
    """Train on the file's gradients and compare every step with the series; returns the steps that changed bases."""
    changed_at: dict[str, list[int]] = {name: [] for name in replay.names}
    split: Any = replay.method._split  # type: ignore[attr-defined]

    def compare_and_split(layers: Any) -> dict[str, float]:
        for name, layer in layers.items():
            a_rn, b_mr = (replay.tensors[f"{name}.{series}{own}_before_split"] for own in "AB")
            assert largest_difference(*aligned(layer.A.detach().t(), a_rn.t())) < 1e-3
            assert largest_difference(*aligned(layer.B.detach(), b_mr)) < 1e-3
        return split(layers)

    replay.method._split = compare_and_split  # type: ignore[attr-defined]
    for step in range(1, steps + 1):
        before = {name: layer.Q_B.clone() for name, layer in replay.layers.items()}
        replay.backward(step)
        report = replay.update()
        assert report.lr == pytest.approx(float(replay.tensors["lr"][step - 1]), rel=1e-5)
        assert report.grad_norm == pytest.approx(float(replay.tensors[f"{series}raw_norm"][step - 1]), rel=1e-3)
        for name, layer in replay.layers.items():
            if not torch.equal(before[name], layer.Q_B):
                changed_at[name].append(step)
            delta = replay.method.delta(layer)
            a, b, q_a, q_b = (replay.tensors[f"{name}.{series}{own}"][step - 1] for own in ("A", "B", "Q_A", "Q_B"))
            expected = 2.0 * (q_b @ a + b @ q_a.t() if q_b.any() else b @ a)
            assert largest_difference(delta, expected) < 2e-4, (name, step)
    return changed_at


def aligned(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """(`found` with the signs of the expected columns, `expected`): singular vectors are determined up to the sign."""
    sign = torch.sign((found * expected).sum(0))
    return found * sign, expected


class RecordedGradients(Context):
    """A DataContext whose rows have the recorded gradients."""

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


def prepared_lora_sb(**keys: Any) -> Replay:
    """A replay of LoRA-SB after its start from the recorded row gradients."""
    train = TrainConfig(lr=2e-4, schedule="constant", clip_norm=None, weight_decay=0.01)
    replay = Replay("lora_sb", "lora_sb", train, samples=5, eta=3e-4, **keys)
    context = RecordedGradients(lambda: None)
    context.replay = replay
    facts = replay.method.prepare(replay.layers, context)
    assert facts["eta"] == 3e-4 == pytest.approx(float(replay.tensors["eta"]))
    replay.state.optimizer.refresh_masters()
    return replay


def test_lora_sb_start_equals_that_of_its_authors() -> None:
    replay = prepared_lora_sb(svd="exact")
    for name, layer in replay.layers.items():
        recorded = lambda key: replay.tensors[f"{name}.exact.{key}"]  # noqa: B023, E731
        assert largest_difference(replay.method.delta(layer), recorded("delta")) < 1e-5
        assert largest_difference(layer.R.diag(), recorded("R").diag()) < 1e-5
        share = float(layer.R.detach().square().sum() / replay.tensors[f"{name}.step"].square().sum())
        assert share == pytest.approx(float(recorded("captured")[0]), rel=1e-5)
    rounded = prepared_lora_sb(svd="authors", factor_dtype="bfloat16")
    for name, layer in rounded.layers.items():
        step_mn = rounded.tensors[f"{name}.step"]
        share = 1 - float((rounded.method.delta(layer).detach() - step_mn).square().sum() / step_mn.square().sum())
        assert share == pytest.approx(float(rounded.tensors[f"{name}.authors.captured"][1]), abs=0.01)
        for tensor in (layer.A, layer.B, layer.R):
            assert torch.equal(tensor, tensor.bfloat16().float()), "the authors round all three to bf16"
        assert all(rounded.method.scale() == rounded.tensors[f"{name}.{kind}.scale"] for kind in ("exact", "authors"))
    rounded.set_values(A="authors.A", B="authors.B", R="authors.R")
    for name, layer in rounded.layers.items():
        assert largest_difference(rounded.method.delta(layer), rounded.tensors[f"{name}.authors.delta"]) < 1e-5


def test_lora_sb_start_from_the_authors_random_draw_equals_theirs() -> None:
    """Seed 42, one unused draw, then svd_lowrank. Few entries may be rounded to bf16 in the other direction."""
    tensors = recorded_tensors("lora_sb")
    for name in layer_names(tensors):
        step_mn = tensors[f"{name}.step"]
        generator = torch.Generator().manual_seed(42)
        torch.randn(step_mn.shape[0], 4, generator=generator)
        u_mr, s_r, v_nr = svd_from_draw_of_torch(step_mn, 4, generator, 0, 10)
        a, b, r = (tensors[f"{name}.authors.{own}"] for own in "ABR")
        for found, expected in ((u_mr, b), (v_nr, a.t()), (s_r.diag(), r)):
            in_bf16, expected = aligned(found.bfloat16().float(), expected)
            assert largest_difference(in_bf16, expected) < 2**-7
            assert float((in_bf16 == expected).float().mean()) > 0.98


def svd_from_draw_of_torch(
    matrix_mn: Tensor, rank: int, generator: torch.Generator, oversampling: int, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`randomised_svd` with the random draw of torch.svd_lowrank, which transposes a wide matrix."""
    if matrix_mn.shape[0] >= matrix_mn.shape[1]:
        return randomised_svd(matrix_mn, rank, generator, oversampling, iterations)
    v_nr, s_r, u_mr = randomised_svd(matrix_mn.t(), rank, generator, oversampling, iterations)
    return u_mr, s_r, v_nr


def test_lora_sb_weights_rows_of_batches_as_its_authors() -> None:
    """With batches of 3 rows a row of a full batch weighs 1/9, and one of the last two rows 1/4."""
    replay = prepared_lora_sb(svd="exact", gradient_batch=3)
    for name, layer in replay.layers.items():
        u, s, vh = torch.linalg.svd(replay.tensors[f"{name}.step_batches_of_3"])
        best = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
        assert largest_difference(replay.method.delta(layer), best) < 1e-4


def test_lora_sb_sums_gradients_in_bf16_as_its_authors() -> None:
    """Row gradients are rounded and added in bf16, in which some entries cancel; the step is rounded too."""
    replay = prepared_lora_sb(svd="exact", gradient_dtype="bfloat16")
    for name, layer in replay.layers.items():
        u, s, vh = torch.linalg.svd(replay.tensors[f"{name}.bf16.step"])
        best = u[:, :4] @ torch.diag(s[:4]) @ vh[:4]
        assert largest_difference(replay.method.delta(layer), best) < 1e-5
    assert not replay.tensors["layer1.bf16.step"].all(), "some entry cancels, else the test would show less"


@pytest.mark.parametrize("kind", ["exact", "authors"])
def test_lora_sb_training_equals_that_of_its_authors(kind: str) -> None:
    replay = prepared_lora_sb(svd="exact").set_values(A=f"{kind}.A", B=f"{kind}.B", R=f"{kind}.R")
    for step in range(1, 6):
        replay.backward(step, "train_gradients")
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R.grad, replay.tensors[f"{name}.{kind}.R_gradients"][step - 1]) < 1e-5
        replay.update()
        for name, layer in replay.layers.items():
            assert largest_difference(layer.R, replay.tensors[f"{name}.{kind}.R_steps"][step - 1]) < 1e-5


def test_lora_sb_training_in_bf16_equals_that_of_its_authors_bitwise() -> None:
    """R, its gradients and Adam's moments are in bf16, and every operation rounds."""
    replay = prepared_lora_sb(svd="exact", r_dtype="bfloat16").set_values(A="bf16.A", B="bf16.B", R="bf16.R")
    replay.state.optimizer.refresh_masters()
    for step in range(1, 6):
        replay.state.optimizer.zero_grad()
        for name, layer in replay.layers.items():
            (layer.R * replay.tensors[f"{name}.bf16.R_gradients"][step - 1]).sum().backward()
        replay.update()
        for name, layer in replay.layers.items():
            assert torch.equal(layer.R.detach(), replay.tensors[f"{name}.bf16.R_steps"][step - 1])


def test_eta_of_code_equals_the_published_values() -> None:
    """eta from the batches of the gradient loader over the warm-up: 3.00e-7 for math and 2.93e-6 for commonsense."""
    for rows, batch, epochs, lr, printed in ((50_000, 3, 1, 1e-4, 3.00e-7), (170_420, 10, 2, 2e-3, 2.93e-6)):
        context = Context(lambda: None, train_rows=rows, warmup_ratio=0.02, epochs=epochs, learning_rate=lr)
        method = Replay("lora_sb", "lora_sb", eta="code", gradient_batch=batch).method
        assert method._eta(context) == pytest.approx(printed, rel=2e-3)  # type: ignore[attr-defined]


def test_lora_xs_equals_its_authors() -> None:
    train = TrainConfig(lr=4e-3, schedule="constant", clip_norm=None)
    replay = Replay("lora_xs", "lora_xs", train, alpha=8.0)
    generator = torch.Generator().manual_seed(5)
    for name, layer in replay.layers.items():
        torch.empty(4, 4).uniform_(generator=generator)  # their layer draws an initial weight before R replaces it
        replay.method.create(layer, generator)
        assert largest_difference(layer.R, replay.tensors[f"{name}.R_start"]) < 1e-6, "their random draw"
        assert replay.method.scale() == replay.tensors[f"{name}.scale"]
    replay = Replay("lora_xs", "lora_xs", train, alpha=8.0)
    for name, layer in replay.layers.items():
        assert largest_difference(layer.B @ layer.A, replay.tensors[f"{name}.B"] @ replay.tensors[f"{name}.A"]) < 1e-5
    replay.set_values(A="A", B="B", R="R")
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
def test_pissa_start_equals_that_of_peft(svd: str, niter: int, scale: int) -> None:
    """Scale 1 as its authors run it, 2 as SDS-LoRA's author does. The fast SVD starts from another random draw."""
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
            assert largest_difference(*aligned(layer.A_initial.t(), a.t())) < 1e-4
            assert largest_difference(*aligned(layer.B_initial, b)) < 1e-4


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("niter", [4, 16])
def test_fast_pissa_start_from_the_random_draw_of_peft_equals_its_start(niter: int, scale: int) -> None:
    tensors = recorded_tensors("pissa")
    for name in layer_names(tensors):
        weight_mn = tensors[f"{name}.W0"]
        triples = svd_from_draw_of_torch(weight_mn, 4, torch.Generator().manual_seed(21), 0, niter)
        b_mr, a_rn = balanced_factors(triples, float(scale))
        a, b = (tensors[f"{name}.niter_{niter}.scale{scale}.{own}"] for own in "AB")
        assert largest_difference(*aligned(a_rn.t(), a.t())) < 1e-5
        assert largest_difference(*aligned(b_mr, b)) < 1e-5
        if scale == 1:
            assert largest_difference(weight_mn - b_mr @ a_rn, tensors[f"{name}.niter_{niter}.scale1.residual"]) < 1e-5


@pytest.mark.parametrize("gamma", [16, 512])
def test_lora_ga_start_equals_that_of_its_authors(gamma: int) -> None:
    replay = Replay("lora_ga", "lora_ga", alpha=4.0, gamma=float(gamma), svd_iterations=30)
    context = Context(lambda: None)
    context.summed_gradients = lambda layers, rows, *_: {  # type: ignore[method-assign]
        name: replay.tensors[f"{name}.gradient"] for name in layers
    }
    replay.method.prepare(replay.layers, context)
    for name, layer in replay.layers.items():
        a, b = (replay.tensors[f"{name}.exact.gamma{gamma}.{own}"] for own in "AB")
        assert largest_difference(*aligned(layer.A.detach().t(), a.t())) < 1e-3
        assert largest_difference(*aligned(layer.B.detach(), b)) < 1e-3
        assert math.isclose(replay.method.scale(), 2.0)
        seeded = [replay.tensors[f"{name}.seeded.gamma{gamma}.{own}"] for own in "AB"]
        base = replay.tensors[f"{name}.W0"] - 2.0 * seeded[1] @ seeded[0]
        if gamma == 16:
            assert largest_difference(base, replay.tensors[f"{name}.seeded.gamma16.base"]) < 1e-5
        assert largest_difference(*aligned(layer.A.detach().t(), seeded[0].t())) < 2e-3, "svd_lowrank's random draw"
        assert largest_difference(*aligned(layer.B.detach(), seeded[1])) < 2e-3
        if gamma == 16:
            base = layer.weight - 2.0 * aligned(layer.B_initial, b)[0] @ aligned(layer.A_initial.t(), a.t())[0].t()
            assert largest_difference(base, replay.tensors[f"{name}.exact.gamma16.base"]) < 1e-4


@pytest.mark.parametrize("gamma", [16, 512])
def test_lora_ga_start_from_the_authors_random_draw_equals_theirs(gamma: int) -> None:
    """The last layer is wide: torch transposes it, so its draw differs and the tolerance is larger."""
    replay = Replay("lora_ga", "lora_ga", alpha=4.0, gamma=float(gamma))
    for number, (name, layer) in enumerate(replay.layers.items()):
        context = Context(lambda: None)
        context.generator = torch.Generator().manual_seed(11 + number)
        context.summed_gradients = lambda *_: {name: replay.tensors[f"{name}.gradient"]}  # type: ignore[method-assign] # noqa: B023
        replay.method.prepare({name: layer}, context)
        tolerance = 1e-5 if layer.out_features >= layer.in_features else 2e-3
        a, b = (replay.tensors[f"{name}.seeded.gamma{gamma}.{own}"] for own in "AB")
        assert largest_difference(*aligned(layer.A.detach().t(), a.t())) < tolerance
        assert largest_difference(*aligned(layer.B.detach(), b)) < tolerance


def test_dora_equals_peft_and_its_authors_at_a_generic_state() -> None:
    """Outputs and gradients of peft's and of the authors' class, and peft's merged weight."""
    train = TrainConfig(lr=5e-3, schedule="constant", clip_norm=None)
    replay = Replay("dora", "dora", train, alpha=8.0)
    replay.set_values(A="generic.A", B="generic.B", magnitude="generic.magnitude")
    for name, layer in replay.layers.items():
        recorded = lambda key: replay.tensors[f"{name}.{key}"]  # noqa: B023, E731
        x = recorded("x")[0].clone().requires_grad_()
        y = layer(x)
        y.backward(recorded("dy")[0])
        for code in ("generic", "generic.authors"):
            found = {"y": y, "dx": x.grad, "dA": layer.A.grad, "dB": layer.B.grad, "dmagnitude": layer.magnitude.grad}
            for key, value in found.items():
                assert largest_difference(value, recorded(f"{code}.{key}")) < 1e-5, (code, key)
        assert largest_difference(replay.method.merged_weight(layer), recorded("generic.merged")) < 1e-5


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_dora_training_equals_that_of_peft(decay: float) -> None:
    """Five steps from B = 0, with outputs and gradients in two of them; peft applies weight decay to magnitudes too."""
    train = TrainConfig(lr=5e-3, schedule="constant", clip_norm=None, weight_decay=decay, decay_vectors=True)
    replay = Replay("dora", "dora", train, alpha=8.0).set_values(A="A0", magnitude="magnitude0")
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
        assert replay.largest_difference_from(f"decay{decay:g}", step, "A", "B", "magnitude") < 1e-5


def test_fast_svd_captures_as_much_as_torch() -> None:
    """The algorithm is that of torch.svd_lowrank, here from another random draw."""
    weight_mn = recorded_tensors("pissa")["layer1.W0"]
    u, s, v = randomised_svd(weight_mn, 4, torch.Generator().manual_seed(0), 0, 16)
    share = float((u * s @ v.t()).square().sum() / weight_mn.square().sum())
    assert share == pytest.approx(float(recorded_tensors("pissa")["layer1.niter_16.scale1.captured"][0]), abs=1e-3)
