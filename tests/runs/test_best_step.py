"""train.best_every: a run's result is the adapter at the step with the lowest held-out loss, interrupted or not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdsbench.core import step_log
from sdsbench.core.errors import ConfigError, Interrupted, Unavailable
from sdsbench.core.record import Record
from sdsbench.runs import train
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.runs.run_data import load_run
from sdsbench.sweeps.workload import workload
from sdsbench.training.best_step import keep_if_best, put_back
from sdsbench.training.schedule import warmup_steps
from sdsbench.training.signals import StopRequest
from tests.methods.tiny import tiny_model
from tests.tools import QUIET
from tests.training.test_passes import assemble_training

FAST = [
    "model=micro", "task=gsm8k", "data.source=embedded", "data.train_limit=40", "train.batch_size=2",
    "train.schedule=constant", "train.best_every=2", "train.best_rows=6", "eval.limit=2", "task.max_new_tokens=4",
    "eval.untrained=false", "threads=1",
]  # fmt: skip
SDS = ["method=sds_lora", "method.rank=4", "method.warmup_steps=3", "method.guard=0", "method.refresh=never"]
LORA = ["method=lora", "method.rank=4"]


def saved_adapter(folder: Path, record: Record) -> dict[str, Any]:
    """The bytes of every saved tensor, and the saved state of the method."""
    saved = folder / record.run_id / "adapter"
    tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(saved / "adapter.safetensors").items()}
    return tensors | {"state": json.loads((saved / "adapter.json").read_text())["state"]}


@pytest.mark.parametrize("method", [LORA, SDS], ids=["lora", "sds_lora"])
def test_result_equals_that_of_a_run_that_ends_at_the_best_step(
    method: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given losses make step 2 the best of three; step 6 has the same loss. SDS-LoRA's bases are set after step 2."""

    def train_to(steps: int, given: list[float]) -> Record:
        with monkeypatch.context() as patch:
            patch.setattr(train, "mean_loss", lambda model, *_: (model.eval(), given.pop(0))[1])
            words = [*FAST, *method, f"train.max_steps={steps}", f"output_root={tmp_path}"]
            record = execute(compose_run(words), QUIET)
        assert given == [], "one held-out loss every two steps"
        return record

    longer, shorter = train_to(7, [0.9, 1.5, 0.9]), train_to(2, [0.9])
    assert longer.facts["best_step"] == 2 and longer.facts["best_step_loss"] == 0.9
    assert saved_adapter(tmp_path, longer) == saved_adapter(tmp_path, shorter)
    assert (longer.losses.steps, longer.losses.last == shorter.losses.last) == (7, False)
    last = train_to(6, [1.5, 0.9, 0.3])
    assert saved_adapter(tmp_path, last) != saved_adapter(tmp_path, shorter)
    log = step_log.read(tmp_path / longer.run_id / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in log if line["kind"] == "held_out"] == [
        (2, 0.9),
        (4, 1.5),
        (6, 0.9),
    ]


def test_resumed_run_keeps_its_best_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt ends after step 5; the second evaluates step 4 again; step 2 is the best."""

    class StopAfterStepFive(StopRequest):
        def raise_if_received(self, saved: str) -> None:
            if "step 5" in saved:
                raise Interrupted(saved)

    given = [0.5, 0.9, 0.9, 0.8, 0.7, 0.5, 0.9, 0.8, 0.7]
    monkeypatch.setattr(train, "mean_loss", lambda model, *_: (model.eval(), given.pop(0))[1])
    words = [*FAST, *LORA, "train.max_steps=8", "train.checkpoint_every=3"]
    here, there = (compose_run([*words, f"output_root={tmp_path / name}"]) for name in ("here", "there"))
    with pytest.raises(Interrupted):
        execute(here, RunContext(log=lambda _: None, stop=StopAfterStepFive()))
    resumed, whole = execute(here, QUIET), execute(there, QUIET)
    assert [attempt.from_step for attempt in resumed.attempts] == [0, 3]
    assert whole.facts["best_step"] == 2, "measured by the first attempt"
    assert (resumed.facts, resumed.losses) == (whole.facts, whole.losses)
    assert saved_adapter(tmp_path / "here", resumed) == saved_adapter(tmp_path / "there", whole)


def test_a_trained_head_is_kept_with_the_adapter_and_frozen_weights_are_not() -> None:
    training, state = assemble_training(tiny_model("encoder"), "encoder", "lora")
    before = {name: tensor.detach().clone() for name, tensor in training.model.state_dict().items()}
    keep_if_best(training.model, state, 1.0)
    trained = {name for name, parameter in training.model.named_parameters() if parameter.requires_grad}
    assert state.best is not None and set(state.best.tensors) == trained
    assert {"classifier.weight", "classifier.bias"} < trained
    training.step(state)
    keep_if_best(training.model, state, 1.0)
    assert state.best.step == 0, "on a tie the earlier step stays"
    assert not torch.equal(training.model.classifier.weight, before["classifier.weight"])
    put_back(training.model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())


def test_held_out_rows_are_not_trained_on_and_are_the_same_for_every_seed() -> None:
    first, other = (load_run(compose_run([*FAST, *LORA, f"seed={seed}"])) for seed in (0, 1))
    without = load_run(compose_run([*FAST, *LORA, "train.best_every=null"]))
    assert (len(first.training), len(first.held_out), without.held_out) == (34, 6, None)
    assert first.held_out.indices == other.held_out.indices
    assert sorted({*first.training.indices, *first.held_out.indices}) == list(without.training.indices)
    assert {used.split: used.rows for used in first.used()} == {"train": 34, "held_out": 6, "test": 2}


def test_too_many_held_out_rows_and_full_fine_tuning_are_refused() -> None:
    with pytest.raises(Unavailable, match=r"train\.best_rows=40: accepted: fewer than the 40"):
        load_run(compose_run([*FAST, *LORA, "train.best_rows=40"]))
    with pytest.raises(ConfigError, match=r"train\.best_every=2: accepted: null with method=full_ft"):
        compose_run([*FAST, "method=full_ft"])


def test_run_shorter_than_best_every_logs_that_it_has_no_best_step(tmp_path: Path) -> None:
    logged: list[str] = []
    words = [*FAST, *LORA, "train.max_steps=1", f"output_root={tmp_path}"]
    record = execute(compose_run(words), RunContext(log=logged.append))
    assert "best_step" not in record.facts and any(
        "train.best_every=2 is more than the 1 steps" in text for text in logged
    )


@pytest.mark.parametrize(("method", "every"), [("dora", 80), ("lora_xs", 40)])
def test_protocols_follow_the_papers_best_step_recipes(method: str, every: int) -> None:
    """120 of 170,420 rows are held out; the warm-up has the 100 steps of the authors' scripts."""
    config = compose_run([f"protocol={method}/commonsense", "data.source=hub"])
    keys = config.train
    assert (keys.best_every, keys.best_rows) == (every, 120)
    steps = 3 * math.ceil((170_420 - 120) / keys.batch_size)
    assert workload(config, {}).steps == steps
    assert warmup_steps(keys.warmup_ratio, steps, keys.warmup_rounding) == 100
