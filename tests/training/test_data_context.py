"""Gradients for a method's start (LoRA-SB, LoRA-GA): sums over rows of the gradient of each row's mean loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdsbench.methods.attach import attach
from sdsbench.training.causal import CausalObjective, EncodedText
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.order import DataOrder
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import make_method, tiny_model

LENGTHS = (3, 9, 6, 12)
ROWS = [EncodedText(tuple((7 * row + 3 * place) % 40 for place in range(n)), 2) for row, n in enumerate(LENGTHS)]


def make_context(seed: int = 0, **train: Any) -> tuple[TrainingContext, dict]:
    model = tiny_model("decoder")
    layers = attach(model, make_method("lora"), 0)
    config = TrainConfig(lr=1e-2, **train)
    order = DataOrder(len(ROWS), 1, 0)
    objective = CausalObjective(None, None, 0)
    training = Training(model, objective, ROWS, order, config, torch.device("cpu"), Dropout(model, 0))
    return TrainingContext(training, torch.Generator().manual_seed(seed)), layers


def gradients_of_mean_losses() -> list[dict[str, Tensor]]:
    """dL/dW per row, of transformers' mean loss over the row's targets (all tokens after the second)."""
    found = []
    for row in ROWS:
        model = tiny_model("decoder")
        labels = [-100] * row.first_target + list(row.ids[row.first_target :])
        model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss.backward()
        found.append({name.removesuffix(".weight"): p.grad for name, p in model.named_parameters()})
    return found


def test_summed_gradient_is_that_of_the_rows_mean_losses() -> None:
    assert len({row.targets for row in ROWS}) == len(ROWS), "with rows of equal lengths the test could not fail"
    expected = gradients_of_mean_losses()
    found, layers = make_context()
    for name, gradient_mn in found.summed_gradients(layers, len(ROWS)).items():
        total_mn = torch.stack([row[name] for row in expected]).sum(0)
        torch.testing.assert_close(gradient_mn, total_mn, rtol=1e-4, atol=1e-5 * float(total_mn.abs().max()))


def test_generator_chooses_the_requested_number_of_different_rows() -> None:
    expected = gradients_of_mean_losses()
    chosen = set()
    for seed in range(8):
        found, layers = make_context(seed)
        name, gradient_mn = next(iter(found.summed_gradients(layers, 2).items()))
        sums = {(a, b): expected[a][name] + expected[b][name] for a in range(len(ROWS)) for b in range(a)}
        fitting = [pair for pair, sum_mn in sums.items() if torch.allclose(gradient_mn, sum_mn, rtol=1e-3, atol=1e-4)]
        assert len(fitting) == 1, f"generator {seed}: not the gradients of two different rows"
        chosen |= set(fitting)
    assert len(chosen) > 1


def test_context_gives_rows_warmup_steps_and_learning_rate() -> None:
    """LoRA-SB's eta is the learning rate divided by the warm-up steps."""
    found, _ = make_context(max_steps=40, warmup_ratio=0.1)
    assert (found.train_rows, found.warmup_steps, found.learning_rate) == (4, 4, 1e-2)


def test_constant_rate_steps_use_the_peak_rate_and_leave_no_optimizer_state() -> None:
    """The steps use the run's first batches at its peak learning rate, whatever the schedule gives there."""
    found, layers = make_context(max_steps=40, warmup_ratio=0.5)
    optimizer = FlatOptimizer(
        [Group("adapter", [layer.B for layer in layers.values()], 1e-2, 0.0, "adamw")], TrainConfig()
    )
    found.state = TrainState(optimizer, make_method("lora"), layers)
    seen = []

    def after_step(step: int, _: Any) -> None:
        seen.append((step, float(next(iter(layers.values())).B.abs().max())))

    found.train_at_constant_rate(2, after_step)
    assert [step for step, _ in seen] == [1, 2]
    assert seen[0][1] == pytest.approx(1e-2, rel=1e-3), "AdamW's first step has the size of the learning rate"
    assert not any(key.startswith("state") for key in optimizer.tensors())


def test_batch_adds_the_gradient_of_its_mean_loss_divided_by_its_rows() -> None:
    found, layers = make_context()
    total = found.summed_gradients(layers, len(ROWS), batch=len(ROWS))
    targets = [row.targets for row in ROWS]
    expected = gradients_of_mean_losses()
    for name, gradient_mn in total.items():
        mean_mn = sum(t * row[name] for t, row in zip(targets, expected, strict=True)) / sum(targets) / len(ROWS)
        torch.testing.assert_close(gradient_mn, mean_mn, rtol=1e-4, atol=1e-5 * float(mean_mn.abs().max()))
