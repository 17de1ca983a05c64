"""The loop: any cut into passes, data order, schedules, seeds that move one thing each."""

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


def test_seeds_move_one_thing_each(tmp_path: Path, device: str) -> None:
    """The same run again has the same losses: bitwise on a CPU, on CUDA to 1e-5."""
    base = ["seed=0", "method.dropout=0.2", f"device={device}"]
    reference = losses(tmp_path, *base)
    again = losses(tmp_path / "again", *base)
    assert again == (reference if device == "cpu" else pytest.approx(reference, rel=1e-5))
    assert losses(tmp_path, *base, "seeds.data=1")[0] != reference[0], "another first batch"
    init = losses(tmp_path, *base, "seeds.init=1")
    assert init[0] == reference[0], "B = 0: the first loss does not see A"
    assert init[2:] != reference[2:]
    dropout = losses(tmp_path, *base, "seeds.dropout=1")
    assert dropout[0] == reference[0] and dropout[2:] != reference[2:]


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    import random

    import numpy as np

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    losses(tmp_path, "method=lora_sb", "method.dropout=0.1", "train.max_steps=2")
    losses(tmp_path, "method=pissa", "train.max_steps=2")
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()


def test_non_finite_loss_is_a_failed_record(tmp_path: Path) -> None:
    from sdsbench.core.run_folder import read_record

    with pytest.raises(TrainingFailed, match=r"step \d+: loss .* not finite. Try a lower train.lr"):
        losses(tmp_path, "method=full_ft", "train.lr=1e30", "train.clip_norm=null", "train.max_steps=10")
    record = read_record(next(tmp_path.glob("*/record.json")))
    assert record.status == "failed"
    assert record.failure is not None and record.failure.last_metrics["loss"] > 0


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 5))
def test_every_epoch_shows_every_row_once(rows: int, batch: int, seed: int) -> None:
    order = DataOrder(rows, batch, seed)
    for epoch in range(2):
        steps = range(1 + epoch * order.steps_per_epoch, 1 + (epoch + 1) * order.steps_per_epoch)
        assert sorted(number for step in steps for number in order.examples(step)) == list(range(rows))


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        found = DataOrder(40, 8, seed)
        first = epoch * found.steps_per_epoch
        return tuple(number for step in range(first + 1, first + 6) for number in found.examples(step))

    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)
    assert tuple(range(40)) not in orders
    assert order(2, 3) == order(2, 3)


def test_steps_of_whole_and_part_epochs() -> None:
    order = DataOrder(41, 8, 0)
    assert order.steps_per_epoch == 6, "the sixth step has one row"
    assert [len(order.examples(step)) for step in range(1, 8)] == [8, 8, 8, 8, 8, 1, 8]
    assert [order.total_steps(epochs, None) for epochs in (0.01, 0.5, 1, 2)] == [1, 3, 6, 12]
    assert order.total_steps(3.0, 5) == 5, "train.max_steps counts where it is given"


def test_warmup_is_a_share_of_the_steps_rounded_up() -> None:
    assert [warmup_steps(ratio, 50) for ratio in (0.0, 0.01, 0.1, 0.11)] == [0, 1, 5, 6]


def test_schedules_meet_at_their_ends() -> None:
    """The first step after the warm-up has the whole rate; a run that is all warm-up divides by nothing."""
    for schedule in ("constant", "linear", "cosine"):
        assert factor(schedule, 1, 10, 0) == factor(schedule, 6, 10, 5) == 1.0
        assert factor(schedule, 5, 5, 5) == pytest.approx(0.8)
        assert factor(schedule, 6, 5, 5) == 1.0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    total, warmup = 40, 5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(1, total + 1):
        assert factor(schedule, step, total, warmup) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_means_of_a_step_and_of_its_groups() -> None:
    """Four examples with 1, 2, 3 and 4 targets: one mean, or the mean of the means of two each, whatever the cut."""
    a, b, c, d = (SimpleNamespace(targets=n) for n in (1, 2, 3, 4))
    assert divisors([[a, b], [c, d]], None) == [10, 10]
    assert divisors([[a, b], [c, d]], 2) == [6, 14]
    assert divisors([[a], [b], [c, d]], 2) == [6, 6, 14]
    assert divisors([[a], [b], [c], [d]], 1) == [4, 8, 12, 16]
