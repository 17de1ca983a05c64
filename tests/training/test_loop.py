"""The training loop: seeds, failures, the order of data, schedules, and means over the examples of a step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdsbench.core import step_log as metrics
from sdsbench.core.errors import TrainingFailed
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.training.order import DataOrder
from sdsbench.training.passes import divisors
from sdsbench.training.schedule import factor, warmup_steps
from tests.tools import QUIET

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


def test_warmup_steps_are_rounded_up() -> None:
    assert [warmup_steps(ratio, 50) for ratio in (0.0, 0.01, 0.1, 0.11)] == [0, 1, 5, 6]


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
