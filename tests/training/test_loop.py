"""The training loop: seeds, failures, the order of data, schedules, and means over the examples of a step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdsbench.core import step_log as metrics
from sdsbench.core.errors import TrainingFailed
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.training import loop
from sdsbench.training.assemble import assemble
from sdsbench.training.causal import CausalObjective
from sdsbench.training.loop import StepReport, Training, Unobserved, check_finite
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.passes import divisors
from sdsbench.training.schedule import factor, warmup_steps
from sdsbench.training.state import TrainState
from sdsbench.training.tokens import EncodedText
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import make_method, tiny_model
from tests.tools import QUIET

SEEDS = SimpleNamespace(init=0, data=0, dropout=0)

FAST = [
    "model=micro", "data.source=embedded", "data.train_limit=64", "train.max_steps=4", "eval.limit=1", "threads=1",
    "eval.untrained=false", "task.max_new_tokens=2", "dtype=float32", "method=lora", "train.batch_size=2",
]  # fmt: skip


def losses(root: Path, *extra: str) -> list[float]:
    record = execute(compose_run([*FAST, f"output_root={root}", *extra]), QUIET)
    return [line["loss"] for line in metrics.read(root / record.run_id / "metrics.jsonl") if line["kind"] == "train"]


def test_each_seed_changes_only_its_own_part(tmp_path: Path, device: str) -> None:
    """A repeated run has the same losses, bitwise on a CPU and to 1e-5 on CUDA; each seed changes one thing."""
    base = ["seed=0", "method.dropout=0.2", f"device={device}"]
    reference = losses(tmp_path, *base)
    again = losses(tmp_path / "again", *base)
    assert again == (reference if device == "cpu" else pytest.approx(reference, rel=1e-5))
    assert losses(tmp_path, *base, "seeds.data=1")[0] != reference[0], "the data seed changes the first batch"
    init = losses(tmp_path, *base, "seeds.init=1")
    assert init[0] == reference[0], "B = 0, so the first loss does not depend on A"
    assert init[2:] != reference[2:]
    dropout = losses(tmp_path, *base, "seeds.dropout=1")
    assert dropout[0] == reference[0] and dropout[2:] != reference[2:]


def test_run_does_not_change_global_generators(tmp_path: Path) -> None:
    import random

    import numpy as np

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    losses(tmp_path, "method=lora_sb", "method.dropout=0.1", "train.max_steps=2")
    losses(tmp_path, "method=pissa", "train.max_steps=2")
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()


def test_non_finite_loss_is_recorded_as_a_failure(tmp_path: Path) -> None:
    from sdsbench.core.run_folder import read_record

    with pytest.raises(TrainingFailed, match=r"step \d+: loss .* not finite. Try a lower train.lr"):
        losses(tmp_path, "method=full_ft", "train.lr=1e30", "train.clip_norm=null", "train.max_steps=10")
    record = read_record(next(tmp_path.glob("*/record.json")))
    assert record.status == "failed"
    assert record.failure is not None and record.failure.last_metrics["loss"] > 0


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 5))
def test_every_epoch_has_every_row_once(rows: int, batch: int, seed: int) -> None:
    order = DataOrder(rows, batch, seed)
    for epoch in range(2):
        steps = range(1 + epoch * order.steps_per_epoch, 1 + (epoch + 1) * order.steps_per_epoch)
        assert sorted(number for step in steps for number in order.examples(step)) == list(range(rows))


def test_orders_differ_between_epochs_and_seeds() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        found = DataOrder(40, 8, seed)
        first = epoch * found.steps_per_epoch
        return tuple(number for step in range(first + 1, first + 6) for number in found.examples(step))

    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)
    assert tuple(range(40)) not in orders
    assert order(2, 3) == order(2, 3)


def test_number_of_steps_of_whole_and_partial_epochs() -> None:
    order = DataOrder(41, 8, 0)
    assert order.steps_per_epoch == 6, "the sixth step has one row"
    assert [len(order.examples(step)) for step in range(1, 8)] == [8, 8, 8, 8, 8, 1, 8]
    assert [order.total_steps(epochs, None) for epochs in (0.01, 0.5, 1, 2)] == [1, 3, 6, 12]
    assert order.total_steps(3.0, 5) == 5, "train.max_steps takes precedence"


def test_a_repeated_order_is_that_of_the_first_shuffled_epoch() -> None:
    shuffled, repeated, sequential = (DataOrder(41, 8, 2, order) for order in ("shuffled", "repeated", "sequential"))
    first = [shuffled.examples(step) for step in range(1, 7)]
    assert [repeated.examples(step) for step in range(1, 13)] == first * 2
    assert [number for step in range(1, 7) for number in sequential.examples(step)] == list(range(41))
    assert sequential.examples(7) == sequential.examples(1)


def test_warmup_steps_are_rounded_up() -> None:
    assert [warmup_steps(ratio, 50) for ratio in (0.0, 0.01, 0.1, 0.11)] == [0, 1, 5, 6]
    assert [warmup_steps(ratio, 50, "down") for ratio in (0.0, 0.01, 0.1, 0.11)] == [0, 0, 5, 5]


def test_schedules_reach_the_full_rate_after_the_warmup() -> None:
    """The first step after the warm-up has the full rate; a run that is only warm-up must not divide by zero."""
    for schedule in ("constant", "linear", "cosine"):
        assert factor(schedule, 1, 10, 0) == factor(schedule, 6, 10, 5) == 1.0
        assert factor(schedule, 5, 5, 5) == pytest.approx(0.8)
        assert factor(schedule, 6, 5, 5) == 1.0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_equal_those_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    total, warmup = 40, 5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(1, total + 1):
        assert factor(schedule, step, total, warmup) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_divisors_give_the_mean_of_a_step_or_of_groups_of_examples() -> None:
    """Four examples with 1, 2, 3 and 4 targets: one mean, or the mean of two means, independent of the passes."""
    a, b, c, d = (SimpleNamespace(targets=n) for n in (1, 2, 3, 4))
    assert divisors([[a, b], [c, d]], None) == [10, 10]
    assert divisors([[a, b], [c, d]], 2) == [6, 14]
    assert divisors([[a], [b], [c, d]], 2) == [6, 6, 14]
    assert divisors([[a], [b], [c], [d]], 1) == [4, 8, 12, 16]


class Texts(CausalObjective):
    def unfreeze_head(self, model: Any) -> list[Any]:
        return []


def tiny_training(seeds: Any = SEEDS, **keys: Any) -> tuple[Training, TrainState]:
    """LoRA in a random decoder, with eight examples of 3 to 10 tokens."""
    generator = np.random.default_rng(0)
    rows = [EncodedText(tuple(generator.integers(0, 40, length).tolist()), 1) for length in range(3, 11)]
    model, config = tiny_model("decoder"), TrainConfig(**keys)
    parts = model, make_method("lora"), Texts(None, None, 0), rows, config, seeds, torch.device("cpu")
    training, state, _ = assemble(*parts)
    return training, state


@pytest.mark.parametrize("mean_over", [None, 1, 2])
def test_a_step_averages_over_its_groups_of_examples(mean_over: int | None) -> None:
    """Eight examples of 2 to 9 targets: one mean over all, or the mean of each group's mean."""
    training, state = tiny_training(batch_size=8, mean_over=mean_over)
    batch = training.batch(1)

    def mean(examples: Any) -> float:
        with torch.no_grad():
            sums = [float(training.objective.losses(training.model, [[one]], training.device)[0]) for one in examples]
        return sum(sums) / sum(one.targets for one in examples)

    groups = [batch] if mean_over is None else [batch[i : i + mean_over] for i in range(0, 8, mean_over)]
    expected = sum(map(mean, groups)) / len(groups)
    assert training.gradients(state, batch, 1)[1] == pytest.approx(expected, rel=1e-6)
    if mean_over is not None:
        assert expected != pytest.approx(mean(batch), rel=1e-4)


def test_a_step_reports_the_rate_of_its_step_and_hands_it_to_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    training, state = tiny_training(lr=0.02, schedule="linear", max_steps=4, batch_size=2)
    reports: list[StepReport] = []
    given: list[float] = []
    monkeypatch.setattr(state.method, "before_step", lambda layers, step, lr: given.append(lr))
    training.run(state, reports.append)
    assert [report.lr for report in reports] == pytest.approx([0.02, 0.015, 0.01, 0.005]) == given
    assert [report.step for report in reports] == [1, 2, 3, 4]


def flat_gradient(state: TrainState) -> torch.Tensor:
    assert isinstance(state.optimizer, FlatOptimizer)
    return torch.cat([flat.grad for flat in state.optimizer.flat if flat.grad is not None])


def test_gradients_of_a_step_are_those_of_its_mean_loss() -> None:
    training, state = tiny_training(batch_size=4, order="sequential")
    batch = training.batch(1)
    parts, loss = training.gradients(state, batch, 1)
    found = flat_gradient(state).clone()
    assert sorted(example.length for part in parts for example in part) == [3, 4, 5, 6]
    state.optimizer.zero_grad()
    mean = training.objective.loss(training.model, batch, training.device) / sum(example.targets for example in batch)
    mean.backward()
    assert loss == pytest.approx(mean.item(), rel=1e-6)
    torch.testing.assert_close(found, flat_gradient(state), rtol=1e-4, atol=1e-7)


def test_an_optimizer_that_steps_in_backward_is_given_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls the backward pass itself, with a factor of the loss; the reported loss is without it. torchao, which
    adamw8bit needs, is not needed to see that."""
    given: list[tuple[int, float, float | None]] = []

    class InBackward:
        def __init__(self, flat: FlatOptimizer) -> None:
            self.flat = flat

        def step(self, backward: Any, step: int, lr_factor: float, clip_norm: float | None) -> tuple[float, float]:
            given.append((step, lr_factor, clip_norm))
            return backward(0.5), 7.0

    plain, plain_state = tiny_training(batch_size=4, schedule="linear", max_steps=4)
    _, loss = plain.gradients(plain_state, plain.batch(1), 1)
    training, state = tiny_training(batch_size=4, schedule="linear", max_steps=4, clip_norm=0.5)
    flat, state.optimizer = state.optimizer, InBackward(state.optimizer)  # type: ignore[assignment, arg-type]
    monkeypatch.setattr(loop, "InBackwardAdamW", InBackward)
    report = training.step(state)
    assert (report.step, report.loss, report.grad_norm, given) == (1, loss, 7.0, [(1, 1.0, 0.5)])
    assert isinstance(flat, FlatOptimizer) and flat.flat[0].grad is not None
    torch.testing.assert_close(2 * flat.flat[0].grad, flat_gradient(plain_state))


def test_a_step_lasts_as_long_as_its_halves_without_what_measured_it() -> None:
    class Measured(Unobserved):
        def observe(self, step: int, update: Any) -> float:
            update()
            return 500.0

    training, state = tiny_training(batch_size=2)
    training = dataclasses.replace(training, observer=Measured())
    parts, loss = training.gradients(state, training.batch(1), 1)
    report = training.update(state, parts, loss, 2000.0)
    assert 1500 <= report.seconds < 2000
    assert state.counters.seconds == report.seconds


def test_where_memory_is_short_passes_get_half_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight examples, 52 tokens: one pass, then passes of at most 26, then of at most half of the largest of those."""
    training, state = tiny_training(batch_size=8)
    tried: list[list[int]] = []
    backward = Training.backward

    def short(self: Training, parts: Any) -> float:
        tried.append([self.objective.tokens(part) for part in parts])
        if len(tried) < 3:
            raise MemoryError
        return backward(self, parts)

    monkeypatch.setattr(Training, "backward", short)
    training.gradients(state, training.batch(1), 1)
    assert tried[0] == [52] and max(tried[1]) != min(tried[1])
    assert state.micro_limit == max(tried[1]) // 2 and max(tried[2]) <= state.micro_limit


def test_where_memory_is_short_a_step_that_must_be_whole_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method whose layers see a whole batch would compute something else from its parts."""
    training, state = tiny_training(batch_size=8)
    tried: list[int] = []

    def short(self: Training, parts: Any) -> float:
        tried.append(len(parts))
        raise MemoryError

    monkeypatch.setattr(Training, "backward", short)
    whole = dataclasses.replace(training, whole_steps="its layers mix rows")
    with pytest.raises(MemoryError):
        whole.gradients(state, whole.batch(1), 1)
    assert tried == [1] and state.micro_limit is None


@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_loss_or_a_gradient_alone_ends_the_run(numbers: tuple[float, float]) -> None:
    check_finite(1, 1.0, 1.0)
    with pytest.raises(TrainingFailed, match="step 7"):
        check_finite(7, *numbers)


def test_the_optimizer_rounds_by_the_seed_of_dropout() -> None:
    given: list[int] = []

    def recorded(groups: Any, config: TrainConfig, seed: int) -> FlatOptimizer:
        given.append(seed)
        return FlatOptimizer(groups, config)

    parts = tiny_model("decoder"), make_method("lora"), Texts(None, None, 0), [], TrainConfig()
    assemble(*parts, SimpleNamespace(init=1, data=2, dropout=3), torch.device("cpu"), recorded)
    assert given == [3]
