"""Runs trained side by side have the losses that they have alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sdsbench.core.errors import ConfigError
from sdsbench.methods.attach import attach
from sdsbench.training import activation_checkpointing
from sdsbench.training.causal import CausalObjective, EncodedText
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.side_by_side import Member, SideBySide, with_shared_weights
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import LOW_RANK, make_method, tiny_model

STEPS = 5
RUNS = [(0, 1e-2), (1, 1e-2), (0, 3e-2)]  # (seed, learning rate)


def examples() -> list[EncodedText]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 12, 10).tolist()
    return [EncodedText(tuple(generator.integers(0, 40, length).tolist()), length // 2) for length in lengths]


def make_member(
    base: Any,
    name: str,
    seed: int,
    lr: float,
    micro_tokens: int | None = None,
    seen: list[float] | None = None,
    checkpointing: bool = False,
    **keys: object,
) -> Member:
    model, method = with_shared_weights(base), make_method(name, **keys)
    config = TrainConfig(lr=lr, batch_size=4, max_steps=STEPS, activation_checkpointing=checkpointing)
    layers = attach(model, method, seed)
    rows = examples()
    dropout = Dropout(model, seed)
    order = DataOrder(len(rows), 4, seed)
    training = Training(model, CausalObjective(None, None, 0), rows, order, config, base.device, dropout)
    training = dataclasses.replace(training, micro_tokens=micro_tokens)
    for layer in layers.values():
        layer.dropout_masks = dropout.masks
    optimizer = FlatOptimizer(optimizer_groups(model, method, [], config), config)
    method.prepare(layers, TrainingContext(training, torch.Generator().manual_seed(seed)))
    after_step = lambda report: None if seen is None else seen.append(report.loss)  # noqa: E731
    return Member(training, TrainState(optimizer, method, layers), after_step)


@pytest.mark.parametrize(("name", "own"), [*((name, {}) for name in LOW_RANK), ("dora", {"drop_base": True})], ids=str)
def test_losses_side_by_side_equal_those_of_single_runs(name: str, own: dict[str, object], device: str) -> None:
    """They agree to 1e-5, and on CUDA, where sums of products depend on the shape, to 1e-4."""
    base = tiny_model("decoder").to(device)
    keys = {"dropout": 0.1, **own}
    alone = []
    for seed, lr in RUNS:
        single, losses = make_member(base, name, seed, lr, **keys), []
        single.training.run(single.state, lambda report, losses=losses: losses.append(report.loss))
        alone.append(losses)
    joint: list[list[float]] = [[] for _ in RUNS]
    SideBySide(
        base,
        [make_member(base, name, seed, lr, seen=seen, **keys) for (seed, lr), seen in zip(RUNS, joint, strict=True)],
    ).run()
    assert np.allclose(joint, alone, rtol=1e-5 if device == "cpu" else 1e-4, atol=0)
    assert len({tuple(losses) for losses in joint}) == len(RUNS)  # the runs differ from each other


@pytest.mark.parametrize("name", LOW_RANK)
def test_losses_do_not_depend_on_the_passes(name: str) -> None:
    """The members may have different numbers of passes."""
    base, losses = tiny_model("decoder"), []
    for tokens in (None, 25):
        group = SideBySide(
            base, [make_member(base, name, seed, lr, dropout=0.1) for seed, lr in RUNS], micro_tokens=tokens
        )
        losses.append([[report.loss for report in group.step()] for _ in range(2)])
    assert np.allclose(*losses, rtol=1e-5, atol=0)


def test_losses_in_bf16_are_close_to_those_of_a_single_run(device: str) -> None:
    base = tiny_model("decoder", torch.bfloat16).to(device)
    single = make_member(base, "lora", 0, 1e-2, micro_tokens=20)
    expected = [single.training.step(single.state).loss for _ in range(3)]
    group = SideBySide(base, [make_member(base, "lora", seed, 1e-2) for seed in (0, 1)], micro_tokens=40)
    assert [group.step()[0].loss for _ in range(3)] == pytest.approx(expected, rel=2e-2)


def test_activation_checkpointing_changes_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a joint pass is longer than the pieces in which a single run's tokens go through a block."""
    monkeypatch.setattr(activation_checkpointing, "PIECE", 12)
    base = tiny_model("decoder")
    found = []
    for checkpointing in (False, True):
        members = [make_member(base, "lora", seed, 1e-2, checkpointing=checkpointing) for seed in (0, 1)]
        group = SideBySide(base, members)
        found.append([[report.loss for report in group.step()] for _ in range(3)])
        assert (
            any(getattr(module, "gradient_checkpointing", False) for module in group.model.modules()) == checkpointing
        )
    assert found[0] == found[1]


def test_member_can_continue_alone() -> None:
    """A run with its first steps side by side and the others alone has the losses of a single run."""
    base = tiny_model("decoder")
    single = make_member(base, "sds_lora", 1, 1e-2)
    expected = [single.training.step(single.state).loss for _ in range(STEPS)]
    members = [make_member(base, "sds_lora", seed, 1e-2) for seed in (0, 1)]
    group = SideBySide(base, members)
    losses = [group.step()[1].loss for _ in range(2)]
    losses += [members[1].training.step(members[1].state).loss for _ in range(STEPS - 2)]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_members_at_different_steps_are_refused() -> None:
    base = tiny_model("decoder")
    ahead = make_member(base, "lora", 0, 1e-2)
    ahead.training.step(ahead.state)
    with pytest.raises(ConfigError, match="the same steps done"):
        SideBySide(base, [make_member(base, "lora", 0, 1e-2), ahead])


def test_refuses_padded_batches_and_a_head_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_model("decoder")
    padded = make_member(base, "lora", 0, 1e-2)
    padded.training.objective.padded = True  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="padded batches"):
        SideBySide(base, [padded])
    monkeypatch.setattr(CausalObjective, "trains_head", True)
    with pytest.raises(ConfigError, match="a head that trains"):
        SideBySide(base, [make_member(base, "lora", 0, 1e-2)])
