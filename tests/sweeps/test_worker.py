"""Workers run every run once, record failures, tune before final runs, and read base weights once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdsbench.core.errors import DiskRefuses, Owned, Refused, TrainingFailed, Unavailable
from sdsbench.core.record import Attempt
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps import staged_run
from sdsbench.sweeps import worker as workers
from sdsbench.sweeps.local_sweep import _raise_outcome
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import States
from sdsbench.sweeps.tuning import choose
from sdsbench.sweeps.worker import Worker
from sdsbench.training.signals import StopRequest
from tests.sweeps.tools import held_by_another_process, put_record, tiny_plan


def work(plan: Plan, **options: Any) -> tuple[Worker, list[dict[str, Any]]]:
    """Run a worker in this process to its end; returns the worker and the events that it reported."""
    events: list[dict[str, Any]] = []
    worker = Worker(
        plan, list(plan.slots()), {}, lambda event, **facts: events.append({"event": event, **facts}), **options
    )
    worker.work(StopRequest())
    return worker, events


def end_statuses(events: list[dict[str, Any]]) -> list[str]:
    return [event["status"] for event in events if event["event"] == "end"]


def test_base_weights_are_read_once_and_changes_of_a_run_affect_no_other(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "method=full_ft,pissa,lora", "train.lr=1e-2")
    worker, events = work(plan)
    assert end_statuses(events) == ["done"] * 3
    assert worker.weights.reads == 1
    together = {name: read_record(tmp_path / "runs" / name / "record.json").losses for name in plan.manifest.runs}
    for name in reversed(plan.manifest.runs):  # each run alone, with its own copy of the weights
        slots = [slot for slot in plan.slots() if slot.key == name]
        alone = Worker(plan, slots, {"output_root": str(tmp_path / "alone")}, lambda *_, **__: None)
        alone.work(StopRequest())
        assert read_record(tmp_path / "alone" / name / "record.json").losses == together[name]


def test_failing_run_is_recorded_and_others_continue(tmp_path: Path) -> None:
    plan = tiny_plan(
        tmp_path, "train.lr=1e-3,1e30", "train.clip_norm=null", "train.max_steps=4", "train.schedule=constant"
    )
    _, events = work(plan)
    assert end_statuses(events) == ["done", "failed"]
    record = read_record(tmp_path / "runs" / list(plan.manifest.runs)[1] / "record.json")
    assert record.failure is not None
    assert "not finite" in record.failure.message
    assert record.failure.last_metrics.keys() == {"loss", "lr", "grad_norm"}
    assert end_statuses(work(plan)[1]) == []  # neither run is tried again without `retry`
    assert end_statuses(work(plan, retry=True)[1]) == ["failed"]
    assert len(read_record(tmp_path / "runs" / record.run_id / "record.json").attempts) == 2


@pytest.mark.parametrize(("split", "beams"), [("validation", 1), ("test", 1), ("test", 2)])
def test_non_finite_weights_after_the_last_step_are_a_failed_training(split: str, beams: int, tmp_path: Path) -> None:
    """Every step's loss is finite, but the logits after the last step are not; a retry would end the same way."""
    plan = tiny_plan(tmp_path, "train.lr=1e30", "train.clip_norm=null", f"eval.split={split}", f"task.beams={beams}")
    _, events = work(plan)
    assert end_statuses(events) == ["failed"]
    (slot,) = States(plan, tmp_path / "runs").all()
    assert slot.record is not None and slot.record.failure is not None and not slot.worth_retrying
    assert slot.record.failure.message == "logits of the model: nan: not finite. Try a lower train.lr."


def test_tuning_precedes_final_runs_and_the_choice_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {method: [lora], seed: [0, 1]}}]\n"
        "tune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [9]}\n"
    )
    plan = tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))
    states = States(plan, tmp_path / "runs")
    assert states.counts() == {"waiting": 2, "not started": 2}
    _, events = work(plan)
    assert (
        end_statuses(events) == ["done"] * 4
    )  # two tuning runs and two final runs; final runs of rejected rates do not run
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


@pytest.mark.slow  # 1.5 minutes
def test_grid_is_extended_by_runs_until_the_best_rate_is_inside(tmp_path: Path) -> None:
    """Of 0.001 and 0.01, the larger is better after 100 steps, so 0.1 is tried too, but not 0.0001."""
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
    assert sum(bool(slot.slot.extends) for slot in states.all()) == 2  # one more value at each end
    _, events = work(plan)
    assert end_statuses(events) == ["done"] * 4  # three rates and the final run
    final = [slot.record for slot in States(plan, tmp_path / "runs").all() if slot.slot.cell is not None]
    (tuning,) = [record.tuning for record in final if record is not None]
    assert tuning is not None and tuning.interior and (tuning.chosen, tuning.extend) == (0.01, 1)
    assert tuning.grid == pytest.approx([0.001, 0.01, 0.1]) and tuning.declared == [0.001, 0.01]
    assert States(plan, tmp_path / "runs").counts() == {"done": 4, "unneeded": 1}


def test_larger_grid_replaces_the_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()

    def plan_of(grid: str) -> Plan:
        (tmp_path / "sweep" / "t.yaml").write_text(
            f"name: t\nblocks: [{{axes: {{seed: [0]}}}}]\ntune: {{key: train.lr, grid: {grid}, seeds: [9]}}\n"
        )
        return tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))

    work(plan_of("[1e-3, 2e-3]"))
    plan = plan_of("[1e-9, 1e-3, 2e-3]")
    assert len(plan.manifest.cells) == 1
    assert States(plan, tmp_path / "runs").counts() == {"done": 2, "waiting": 1, "not started": 1}
    work(plan)
    final = [slot.record for slot in States(plan, tmp_path / "runs").all() if slot.slot.cell is not None]
    assert [record.tuning.budget for record in final if record is not None and record.tuning is not None] == [3]
    assert end_statuses(work(plan)[1]) == []


@pytest.mark.parametrize(
    ("values", "chosen"),
    [([0.1, 0.3, 0.2], 2e-3), ([0.3, 0.3, 0.1], 1e-3), ([None, 0.0, None], 2e-3), ([0.1, 0.2, None], 2e-3)],
)
def test_rate_with_the_best_validation_score_is_chosen(
    tmp_path: Path, values: list[float | None], chosen: float
) -> None:
    plan = _tuned_plan(tmp_path)
    (cell,) = plan.manifest.cells.values()
    for (name,), value in zip(cell.tuning, values, strict=True):
        put_record(plan, tmp_path / "runs", name, "failed" if value is None else "done", value)
    choice = choose(cell, States(plan, tmp_path / "runs").record)
    assert choice is not None
    assert choice.tuning is not None
    assert choice.tuning.chosen == chosen
    assert choice.tuning.scores == values
    assert (choice.tuning.evaluation, choice.tuning.scorer) == ("gsm8k", "flexible")


def test_cell_is_impossible_where_all_tuning_failed_and_waits_for_unfinished_tuning(tmp_path: Path) -> None:
    plan = _tuned_plan(tmp_path)
    (cell,) = plan.manifest.cells.values()
    for (name,) in cell.tuning:
        put_record(plan, tmp_path / "runs", name, "oom", None)
    assert States(plan, tmp_path / "runs").counts() == {"oom": 3, "impossible": 1}
    put_record(plan, tmp_path / "runs", cell.tuning[0][0], "preempted", None)
    assert States(plan, tmp_path / "runs").counts() == {"waiting": 1, "preempted": 1, "oom": 2}


@pytest.mark.parametrize("seen", ["during the pass", "after the pass"])
def test_worker_stays_while_another_process_tunes(seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has locked the last tuning run and not yet written its record; it ends soon after a pass."""
    plan = _tuned_plan(tmp_path)
    (cell,) = plan.manifest.cells.values()
    *others, (last,) = cell.tuning
    for (name,) in others:
        put_record(plan, tmp_path / "runs", name)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.0)
    with ExitStack() as held:
        held.enter_context(held_by_another_process(tmp_path / "runs" / last))
        passed, asked = Worker._pass, Worker._tuning_elsewhere

        def end() -> None:
            held.close()
            put_record(plan, tmp_path / "runs", last)

        def one_pass(self: Worker, *arguments: Any) -> Any:
            result = passed(self, *arguments)
            if seen == "during the pass":
                end()
            return result

        def elsewhere(self: Worker, slots: Any) -> bool:
            answer = asked(self, slots)
            if seen == "after the pass":
                end()
            return answer

        monkeypatch.setattr(Worker, "_pass", one_pass)
        monkeypatch.setattr(Worker, "_tuning_elsewhere", elsewhere)
        assert end_statuses(work(plan)[1]) == ["done"]
    assert States(plan, tmp_path / "runs").counts() == {"done": 4}


def _tuned_plan(folder: Path) -> Plan:
    (folder / "sweep").mkdir()
    (folder / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, 2e-3, 4e-3], seeds: [9]}\n"
    )
    return tiny_plan(folder, "sweep=t", config_dirs=(str(folder),))


def test_run_of_another_process_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    opened_seeds: list[str] = []

    opened = staged_run.open_run

    @contextmanager
    def open_run(config: Any, context: Any) -> Any:
        opened_seeds.append(str(config.seed))
        if config.seed == 0:
            raise Owned("another process works on this run")
        with opened(config, context) as run:
            yield run

    monkeypatch.setattr(staged_run, "open_run", open_run)
    _, events = work(plan)
    assert opened_seeds == ["0", "1", "0"]  # tried once more, then skipped
    assert end_statuses(events) == ["done"]


def test_lock_holds_while_its_owner_lives(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    with held_by_another_process(tmp_path / "runs" / name):
        assert States(plan, tmp_path / "runs").counts() == {"running": 1}
        assert end_statuses(work(plan)[1]) == []
    assert States(plan, tmp_path / "runs").counts() == {"stopped": 1}
    assert end_statuses(work(plan)[1]) == ["done"]
    assert read_record(tmp_path / "runs" / name / "record.json").checksum != record.checksum


SECOND_CTRL_C = """
import os, signal, sys
from sdsbench.sweeps.worker import main
from sdsbench.training.loop import Training
def step(self, state):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
Training.step = step
main(sys.argv[1:])
"""


def test_second_ctrl_c_ends_a_worker_at_once(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    done = subprocess.run([sys.executable, "-c", SECOND_CTRL_C, str(plan.folder)], capture_output=True, text=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1] == "sdsbench: interrupted", done.stderr
    (name,) = plan.manifest.runs
    assert read_record(tmp_path / "runs" / name / "record.json").status == "preempted"


def test_run_whose_process_died_too_often_is_recorded_as_failed(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    record.attempts = [Attempt(started="2026-01-01T00:00:00+00:00", status="killed") for _ in range(4)]
    record.attempts.append(Attempt(started="2026-01-01T00:00:00+00:00", status="running"))
    workers.RecordKeeper.write(_keeper_of(tmp_path / "runs" / name, record))
    assert end_statuses(work(plan, deaths=6)[1]) == ["done"]  # five deaths are fewer than six
    workers.RecordKeeper.write(_keeper_of(tmp_path / "runs" / name, record))
    assert end_statuses(work(plan, deaths=5)[1]) == ["failed"]
    failure = read_record(tmp_path / "runs" / name / "record.json").failure
    assert failure is not None
    assert "died 5 times" in failure.message


@pytest.mark.parametrize(
    ("statuses", "lost_as", "deaths"),
    [
        (["killed"] * 4 + ["running"], "killed", 5),
        (["killed"] * 4 + ["running"], "node_failure", 4),
        (["killed"] * 4 + ["node_failure", "killed"], "killed", 5),
        (["killed"] * 4 + ["preempted", "killed"], "killed", 1),
    ],
)
def test_failure_of_the_machine_is_no_death_of_the_run(
    statuses: list[Any], lost_as: str, deaths: int, tmp_path: Path
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    record = put_record(plan, tmp_path / "runs", next(iter(plan.manifest.runs)), "running", None)
    attempts = [Attempt(started="2026-01-01T00:00:00+00:00", status=status, from_step=3) for status in statuses]
    assert workers._deaths(record.model_copy(update={"attempts": attempts}), lost_as) == deaths
    attempts[0].from_step = 2  # it died at an earlier step
    fewer = deaths - 1 if deaths > 1 else deaths
    assert workers._deaths(record.model_copy(update={"attempts": attempts}), lost_as) == fewer


def _keeper_of(folder: Path, record: Any) -> Any:
    keeper = object.__new__(workers.RecordKeeper)
    keeper.folder, keeper.record = folder, record.model_copy(deep=True)
    return keeper


def test_run_that_could_not_begin_gives_the_sweep_its_reason_and_exit_code(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    (plan.folder / "runs" / f"{name}.json").write_text("{}")
    _, events = work(plan)
    (end,) = (event for event in events if event["event"] == "end")
    assert (end["status"], end["code"]) == ("not started", 3)
    assert "does not match the checksum" in end["message"]
    for code, error in ((2, Refused), (3, Unavailable), (1, TrainingFailed)):
        pool: Any = SimpleNamespace(disk=None, refused=None, not_begun={name: (code, "it was changed")})
        with pytest.raises(
            error, match=r"1 run\(s\) are not over, of which 1 could not begin\. The first: it was changed"
        ):
            _raise_outcome(plan, pool, {"not started": 1}, [])


def test_disk_error_stops_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")

    def open_run(*_: Any) -> Any:
        raise DiskRefuses("the disk refuses")

    monkeypatch.setattr(staged_run, "open_run", open_run)
    with pytest.raises(DiskRefuses):
        work(plan)
