"""Workers: every run once, failures as records, tuning before final runs, base weights read once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdsbench.core.errors import DiskRefuses, Owned
from sdsbench.core.record import Attempt
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps import staged_run
from sdsbench.sweeps import worker as workers
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import States
from sdsbench.sweeps.tuning import choose
from sdsbench.sweeps.worker import Worker
from sdsbench.training.signals import StopRequest
from tests.sweeps.tools import held_by_another_process, put_record, tiny_plan


def work(plan: Plan, **options: Any) -> tuple[Worker, list[dict[str, Any]]]:
    """A worker's whole life in this process, and what it told."""
    told: list[dict[str, Any]] = []
    worker = Worker(
        plan, list(plan.slots()), {}, lambda event, **facts: told.append({"event": event, **facts}), **options
    )
    worker.work(StopRequest())
    return worker, told


def ends(told: list[dict[str, Any]]) -> list[str]:
    return [event["status"] for event in told if event["event"] == "end"]


def test_base_weights_are_read_once_and_no_run_sees_anothers_changes(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "method=full_ft,pissa,lora", "train.lr=1e-2")
    worker, told = work(plan)
    assert ends(told) == ["done"] * 3
    assert worker.weights.reads == 1
    together = {name: read_record(tmp_path / "runs" / name / "record.json").losses for name in plan.manifest.runs}
    for name in reversed(plan.manifest.runs):  # each alone, with weights of its own
        slots = [slot for slot in plan.slots() if slot.key == name]
        alone = Worker(plan, slots, {"output_root": str(tmp_path / "alone")}, lambda *_, **__: None)
        alone.work(StopRequest())
        assert read_record(tmp_path / "alone" / name / "record.json").losses == together[name]


def test_a_failing_run_is_a_record_and_the_others_go_on(tmp_path: Path) -> None:
    plan = tiny_plan(
        tmp_path, "train.lr=1e-3,1e30", "train.clip_norm=null", "train.max_steps=4", "train.schedule=constant"
    )
    _, told = work(plan)
    assert ends(told) == ["done", "failed"]
    record = read_record(tmp_path / "runs" / list(plan.manifest.runs)[1] / "record.json")
    assert record.failure is not None
    assert "not finite" in record.failure.message
    assert record.failure.last_metrics.keys() == {"loss", "lr", "grad_norm"}
    assert ends(work(plan)[1]) == []  # neither is tried again by itself
    assert ends(work(plan, retry=True)[1]) == ["failed"]
    assert len(read_record(tmp_path / "runs" / record.run_id / "record.json").attempts) == 2


@pytest.mark.parametrize(("split", "beams"), [("validation", 1), ("test", 1), ("test", 2)])
def test_weights_that_the_last_step_spoiled_are_a_training_that_failed(split: str, beams: int, tmp_path: Path) -> None:
    """Each loss of a step was finite, the logits after the last are not; no retry would end otherwise."""
    plan = tiny_plan(tmp_path, "train.lr=1e30", "train.clip_norm=null", f"eval.split={split}", f"task.beams={beams}")
    _, told = work(plan)
    assert ends(told) == ["failed"]
    (slot,) = States(plan, tmp_path / "runs").all()
    assert slot.record is not None and slot.record.failure is not None and not slot.worth_retrying
    assert slot.record.failure.message == "logits of the model: nan: not finite. Try a lower train.lr."


def test_tuning_then_final_runs_with_the_choice_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {method: [lora], seed: [0, 1]}}]\n"
        "tune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [9]}\n"
    )
    plan = tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))
    states = States(plan, tmp_path / "runs")
    assert states.counts() == {"waiting": 2, "not started": 2}
    _, told = work(plan)
    assert ends(told) == ["done"] * 4  # two tuning runs, two final ones: candidates that were not chosen do not run
    states = States(plan, tmp_path / "runs")
    assert states.counts() == {"done": 4}
    for slot in states.all():
        if slot.slot.cell is not None:
            assert slot.record is not None
            assert slot.record.tuning is not None
            assert slot.record.tuning.budget == 2
            assert slot.record.tuning.chosen == slot.record.lr
            assert slot.record.config["eval"]["split"] == "test"
        else:
            assert slot.record is not None
            assert slot.record.tuning is None


@pytest.mark.slow
def test_a_grid_is_widened_by_real_runs_until_the_best_rate_lies_inside(tmp_path: Path) -> None:
    """Of 0.001 and 0.01 the larger is better after 100 steps, so 0.1 is tried as well, and not 0.0001."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {method: [lora], seed: [0]}}]\n"
        "tune: {key: train.lr, grid: [1e-3, 1e-2], seeds: [100], extend: 1}\n"
    )
    longer = [
        "data.train_limit=null", "train.max_steps=100", "train.batch_size=8", "eval.limit=40",
        "data.validation_rows=40", "task.max_new_tokens=128",
    ]  # fmt: skip
    plan = tiny_plan(tmp_path, "sweep=t", *longer, config_dirs=(str(tmp_path),))
    states = States(plan, tmp_path / "runs")
    assert sum(bool(slot.slot.extends) for slot in states.all()) == 2  # one value more at each end
    _, told = work(plan)
    assert ends(told) == ["done"] * 4  # three rates and the final run
    final = [slot.record for slot in States(plan, tmp_path / "runs").all() if slot.slot.cell is not None]
    (tuning,) = [record.tuning for record in final if record is not None]
    assert tuning is not None and tuning.interior and (tuning.chosen, tuning.extend) == (0.01, 1)
    assert tuning.grid == pytest.approx([0.001, 0.01, 0.1]) and tuning.declared == [0.001, 0.01]
    assert States(plan, tmp_path / "runs").counts() == {"done": 4, "unneeded": 1}


def test_a_larger_grid_takes_the_place_of_the_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()

    def planned(grid: str) -> Plan:
        (tmp_path / "sweep" / "t.yaml").write_text(
            f"name: t\nblocks: [{{axes: {{seed: [0]}}}}]\ntune: {{key: train.lr, grid: {grid}, seeds: [9]}}\n"
        )
        return tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))

    work(planned("[1e-3, 2e-3]"))
    plan = planned("[1e-9, 1e-3, 2e-3]")
    assert len(plan.manifest.cells) == 1
    assert States(plan, tmp_path / "runs").counts() == {"done": 2, "waiting": 1, "not started": 1}
    work(plan)
    final = [slot.record for slot in States(plan, tmp_path / "runs").all() if slot.slot.cell is not None]
    assert [record.tuning.budget for record in final if record is not None and record.tuning is not None] == [3]
    assert ends(work(plan)[1]) == []


@pytest.mark.parametrize(
    ("values", "chosen"),
    [([0.1, 0.3, 0.2], 2e-3), ([0.3, 0.3, 0.1], 1e-3), ([None, 0.0, None], 2e-3), ([0.1, 0.2, None], 2e-3)],
)
def test_the_best_validation_score_is_chosen(tmp_path: Path, values: list[float | None], chosen: float) -> None:
    plan = _cell_plan(tmp_path)
    (cell,) = plan.manifest.cells.values()
    for (name,), value in zip(cell.tuning, values, strict=True):
        put_record(plan, tmp_path / "runs", name, "failed" if value is None else "done", value)
    choice = choose(cell, States(plan, tmp_path / "runs").record)
    assert choice is not None
    assert choice.tuning is not None
    assert choice.tuning.chosen == chosen
    assert choice.tuning.scores == values
    assert (choice.tuning.evaluation, choice.tuning.scorer) == ("gsm8k", "flexible")


def test_a_cell_without_a_successful_tuning_run_is_impossible_and_one_unfinished_waits(tmp_path: Path) -> None:
    plan = _cell_plan(tmp_path)
    (cell,) = plan.manifest.cells.values()
    for (name,) in cell.tuning:
        put_record(plan, tmp_path / "runs", name, "oom", None)
    assert States(plan, tmp_path / "runs").counts() == {"oom": 3, "impossible": 1}
    put_record(plan, tmp_path / "runs", cell.tuning[0][0], "preempted", None)
    assert States(plan, tmp_path / "runs").counts() == {"waiting": 1, "preempted": 1, "oom": 2}


def _cell_plan(folder: Path) -> Plan:
    (folder / "sweep").mkdir()
    (folder / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, 2e-3, 4e-3], seeds: [9]}\n"
    )
    return tiny_plan(folder, "sweep=t", config_dirs=(str(folder),))


def test_a_run_of_another_process_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    taken: list[str] = []

    opened = staged_run.open_run

    @contextmanager
    def open_run(config: Any, context: Any) -> Any:
        taken.append(str(config.seed))
        if config.seed == 0:
            raise Owned("another process works on this run")
        with opened(config, context) as run:
            yield run

    monkeypatch.setattr(staged_run, "open_run", open_run)
    _, told = work(plan)
    assert taken == ["0", "1", "0"]  # looked at once more, then left
    assert ends(told) == ["done"]


def test_the_lock_of_a_living_owner_holds_and_that_of_a_dead_one_does_not(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    with held_by_another_process(tmp_path / "runs" / name):
        assert States(plan, tmp_path / "runs").counts() == {"running": 1}
        assert ends(work(plan)[1]) == []
    assert States(plan, tmp_path / "runs").counts() == {"stopped": 1}
    assert ends(work(plan)[1]) == ["done"]
    assert read_record(tmp_path / "runs" / name / "record.json").checksum != record.checksum


TWICE = """
import os, signal, sys
from sdsbench.sweeps.worker import main
from sdsbench.training.loop import Training
def step(self, state):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
Training.step = step
main(sys.argv[1:])
"""


def test_a_second_ctrl_c_ends_a_worker_at_once_in_one_line(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    done = subprocess.run([sys.executable, "-c", TWICE, str(plan.folder)], capture_output=True, text=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1] == "sdsbench: interrupted", done.stderr
    (name,) = plan.manifest.runs
    assert read_record(tmp_path / "runs" / name / "record.json").status == "preempted"


def test_a_run_that_keeps_killing_its_process_is_given_up(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    record.attempts = [Attempt(started="2026-01-01T00:00:00+00:00", status="killed") for _ in range(4)]
    record.attempts.append(Attempt(started="2026-01-01T00:00:00+00:00", status="running"))
    workers.RecordKeeper.write(_keeper(tmp_path / "runs" / name, record))
    assert ends(work(plan, deaths=6)[1]) == ["done"]  # five deaths are not six
    workers.RecordKeeper.write(_keeper(tmp_path / "runs" / name, record))
    assert ends(work(plan, deaths=5)[1]) == ["failed"]
    failure = read_record(tmp_path / "runs" / name / "record.json").failure
    assert failure is not None
    assert "died 5 times" in failure.message


def _keeper(folder: Path, record: Any) -> Any:
    keeper = object.__new__(workers.RecordKeeper)
    keeper.folder, keeper.record = folder, record.model_copy(deep=True)
    return keeper


def test_a_refusing_disk_stops_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")

    def open_run(*_: Any) -> Any:
        raise DiskRefuses("the disk refuses")

    monkeypatch.setattr(staged_run, "open_run", open_run)
    with pytest.raises(DiskRefuses):
        work(plan)
