"""Runs of a plan trained side by side: each ends as it does alone, whatever happens to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdsbench.__main__ import main
from sdsbench.core import step_log as metrics
from sdsbench.core.errors import ConfigError, Interrupted, Unavailable
from sdsbench.core.record import Attempt, Record
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.methods.base import build
from sdsbench.methods.initial import add_lora_factors
from sdsbench.methods.lora import LoRA
from sdsbench.runs import prepare as preparation
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.memory import USABLE, needed_bytes
from sdsbench.sweeps import placing
from sdsbench.sweeps.group import LARGEST, group_bytes, group_key, group_size, most_that_fit
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import States
from sdsbench.sweeps.worker import Worker
from sdsbench.training.side_by_side import SideBySide
from sdsbench.training.signals import StopRequest
from tests.sweeps.tools import TINY, held_by_another_process, put_record, tiny_plan

STEPS = 6


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan of two seeds with two learning rates."""
    return tiny_plan(
        tmp_path_factory.mktemp("group"), "seed=0,1", "train.lr=1e-3,3e-3", f"train.max_steps={STEPS}",
        "train.checkpoint_every=2",
    )  # fmt: skip


@pytest.fixture(scope="module")
def losses_alone(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Run id -> losses of the run trained alone."""
    root = tmp_path_factory.mktemp("alone")
    assert work(plan, root, 1) == {name: "done" for name in plan.manifest.runs}
    assert all(record(root, name).placing["group_size"] == 1 for name in plan.manifest.runs)
    return {name: losses(root, name) for name in plan.manifest.runs}


def work(
    plan: Plan,
    root: Path,
    group_size: int,
    only: list[str] | None = None,
    stop: StopRequest | None = None,
    retry: bool = False,
) -> dict[str, str]:
    """Run a worker in this process; returns run id -> final status."""
    status_by_run: dict[str, str] = {}

    def tell(event: str, **facts: Any) -> None:
        if event == "end":
            assert facts["run"] not in status_by_run
            status_by_run[facts["run"]] = facts["status"]

    slots = [slot for slot in plan.slots() if only is None or slot.key in only]
    worker = Worker(plan, slots, {"output_root": str(root)}, tell, retry=retry, group_size=group_size)
    worker.work(stop or StopRequest())
    return status_by_run


def record(root: Path, name: str) -> Record:
    return read_record(root / name / "record.json")


def losses(root: Path, name: str) -> list[float]:
    return [line["loss"] for line in metrics.read(root / name / "metrics.jsonl") if line["kind"] == "train"]


def record_group_sizes(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the sizes of the groups that start from now on."""
    sizes: list[int] = []
    run = SideBySide.run
    patch.setattr(SideBySide, "run", lambda self, leave: (sizes.append(len(self.members)), run(self, leave))[1])
    return sizes


def call_at_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Call `action` in the joint step that follows `step` steps."""
    backward = SideBySide.backward

    def first(self: SideBySide, steps: Any) -> list[float]:
        if self.members[0].state.step == step:
            action()
        return backward(self, steps)

    patch.setattr(SideBySide, "backward", first)


def test_group_of_four_runs_has_the_losses_of_runs_alone(
    plan: Plan, losses_alone: dict[str, list[float]], tmp_path: Path
) -> None:
    assert work(plan, tmp_path, 4) == {name: "done" for name in plan.manifest.runs}
    for name, expected in losses_alone.items():
        found = record(tmp_path, name)
        assert losses(tmp_path, name) == pytest.approx(expected, rel=1e-5)
        assert (found.status, found.placing["group_size"], found.losses.steps) == ("done", 4, STEPS)  # type: ignore[union-attr]
        assert found.scores
        assert found.memory is None
        assert found.seconds.train > 0
        assert list((tmp_path / name / "samples").iterdir())
        assert not list((tmp_path / name).glob("checkpoint-*"))
    assert len({tuple(values) for values in losses_alone.values()}) == 4  # the four runs differ
    assert work(plan, tmp_path, 4) == {}


def test_failing_run_leaves_the_group_and_unstartable_run_does_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(
        tmp_path, "train.lr=1e-3,1e30,2e-3,3e-3", "train.clip_norm=null", "train.max_steps=4", "train.schedule=constant"
    )
    load = preparation.load

    def unavailable(config: RunConfig, read_model: Any) -> Any:
        if config.train.lr == 3e-3:
            raise Unavailable("no data")
        return load(config, read_model)

    monkeypatch.setattr(preparation, "load", unavailable)
    sizes = record_group_sizes(monkeypatch)
    status_by_run = work(plan, tmp_path / "runs", 4)
    good, bad, other, unread = plan.manifest.runs
    assert status_by_run == {good: "done", bad: "failed", other: "done", unread: "failed"}
    assert list(status_by_run)[:2] == [unread, bad]  # reported, and their locks released, while the others train
    assert sizes == [3]
    assert "They continue alone" not in capsys.readouterr().err
    found = record(tmp_path / "runs", bad)
    assert "not finite" in found.failure.message  # type: ignore[union-attr]
    assert found.failure.last_metrics["lr"] == 1e30  # type: ignore[union-attr]
    assert found.placing["group_size"] == 3
    assert record(tmp_path / "runs", other).losses.steps == 4  # type: ignore[union-attr]


def test_run_held_by_another_process_is_left_out(
    plan: Plan, losses_alone: dict[str, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = plan.manifest.runs
    sizes = record_group_sizes(monkeypatch)
    with held_by_another_process(tmp_path / first):
        assert work(plan, tmp_path, 4) == dict.fromkeys(others, "done")
    assert sizes == [3]
    assert not (tmp_path / first / "record.json").exists()
    assert work(plan, tmp_path, 4) == {first: "done"}
    assert record(tmp_path, first).placing["group_size"] == 1


def test_signal_saves_all_runs_and_each_resumes_alone_or_in_a_group(
    plan: Plan, losses_alone: dict[str, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(plan.manifest.runs)
    stop = StopRequest()

    def send() -> None:
        stop.received = signal.SIGUSR1

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        call_at_step(patch, 2, send)
        work(plan, tmp_path, 4, stop=stop)
    for name in names:
        assert record(tmp_path, name).status == "timeout"
        assert [path.name for path in (tmp_path / name).glob("checkpoint-*")] == ["checkpoint-3"]
    assert work(plan, tmp_path, 1, names[:1]) == {names[0]: "done"}
    stop.received = None
    with monkeypatch.context() as patch, pytest.raises(Interrupted):  # two of the three get one step ahead
        call_at_step(patch, 3, send)
        work(plan, tmp_path, 4, names[1:3], stop=stop)
    sizes = record_group_sizes(monkeypatch)
    stop.received = None
    (tmp_path / names[0] / "record.json").rename(tmp_path / "set aside")  # so this run starts from step 0
    assert work(plan, tmp_path, 4) == dict.fromkeys(names, "done")
    assert sizes == [2]
    for name, expected in losses_alone.items():
        assert losses(tmp_path, name) == pytest.approx(expected, rel=1e-5)


def test_runs_continue_alone_where_the_group_fails_as_a_whole(
    plan: Plan,
    losses_alone: dict[str, list[float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise RuntimeError("out of room")

    call_at_step(monkeypatch, 3, fail)
    assert work(plan, tmp_path, 4) == {name: "done" for name in plan.manifest.runs}
    assert "4 runs side by side: RuntimeError: out of room. They continue alone." in capsys.readouterr().err
    for name, expected in losses_alone.items():
        assert losses(tmp_path, name) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stopped", [False, True])
def test_no_checkpoint_trained_with_changed_shared_weights_is_resumed(
    stopped: bool, plan: Plan, losses_alone: dict[str, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write through `weight.data` is found only by the comparison of contents when a run leaves or the group ends."""
    names, stop = list(plan.manifest.runs)[:2], StopRequest()
    backward = SideBySide.backward

    def write(self: SideBySide, steps: Any) -> list[float]:
        if self.members[0].state.step == 2:
            next(self.base.parameters()).data.add_(0.01)
            stop.received = signal.SIGTERM if stopped else None
        return backward(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(SideBySide, "backward", write)
        if stopped:
            with pytest.raises(Interrupted):
                work(plan, tmp_path, 2, names, stop=stop)
        else:
            assert work(plan, tmp_path, 2, names, stop=stop) == dict.fromkeys(names, "failed")
    assert not list(tmp_path.glob("*/checkpoint-*"))
    for name in names:
        failure = record(tmp_path, name).failure
        assert failure is not None and ("retry PLAN --failed sweep.group_size=1" in failure.message) == (not stopped)
    assert work(plan, tmp_path, 1, names, retry=True) == dict.fromkeys(names, "done")
    for name in names:
        assert losses(tmp_path, name) == losses_alone[name]


def test_killed_group_resumes_together_with_the_sweep_command(
    plan: Plan, losses_alone: dict[str, list[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    die = (
        "import os, sys; from sdsbench.sweeps import worker; from sdsbench.training.side_by_side import SideBySide\n"
        "step = SideBySide.backward\n"
        "def last(self, steps):\n"
        "    return os.kill(os.getpid(), 9) if self.members[0].state.step == 3 else step(self, steps)\n"
        "SideBySide.backward = last\n"
        "worker.main(sys.argv[1:])"
    )
    arguments = [str(plan.folder), "--set=sweep.group_size=4", f'--set=output_root="{tmp_path}"']
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    died = subprocess.run([sys.executable, "-c", die, *arguments], env=environment, stdout=subprocess.DEVNULL)
    assert died.returncode == -signal.SIGKILL
    assert States(plan, tmp_path).counts() == {"stopped": 4}
    assert main(["sweep", str(plan.folder), "sweep.group_size=4", f"output_root={tmp_path}"]) == 0
    assert "4 of 4" in capsys.readouterr().out
    for name, expected in losses_alone.items():
        assert losses(tmp_path, name) == pytest.approx(expected, rel=1e-5)
        assert record(tmp_path, name).placing["group_size"] == 4
        first, second = record(tmp_path, name).attempts
        assert (first.status, second.status) == ("killed", "done")
        assert second.from_step == 2


def test_run_whose_process_died_twice_at_one_step_trains_alone(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a run may be the one that kills the process, so it must not take others with it."""
    suspect, once, *others = plan.manifest.runs
    for name, deaths in ((suspect, 2), (once, 1)):
        found = put_record(plan, tmp_path, name, "running", None)
        died = Attempt(started="2026-01-01T00:00:00+00:00", status="killed")
        write_record(tmp_path / name, found.model_copy(update={"attempts": [died] * deaths}))
    started: list[list[str]] = []
    monkeypatch.setattr(Worker, "_run", lambda self, group, stop, tried: started.append(list(group)) or [])
    work(plan, tmp_path, 4)
    assert started == [[suspect], [once, *others]]


def test_group_members_may_differ_only_in_seeds_and_learning_rates() -> None:
    config = compose_run([*TINY, "method=lora"])
    lora = group_key(config)
    assert lora is not None
    assert group_key(compose_run([*TINY, "method=lora", "seed=3", "train.lr=1", "seeds.dropout=4"])) == lora
    for key, value in (("method.rank", 4), ("train.batch_size", 4), ("eval.split", "validation")):
        assert group_key(with_values(config, {key: value})) not in (lora, None)
    for key, value in (("eval.batch_size", 2), ("protocol.rank", 4), ("train.head_lr", 1.0)):
        assert group_key(with_values(config, {key: value})) == lora, "the run's numbers do not depend on it"
    assert group_key(compose_run([*TINY, "method=full_ft"])) is None
    assert group_key(compose_run(["model=minilm", "task=glue/rte"])) is None


@pytest.mark.parametrize("word", ["sweep.group_size=0", "sweep.group_size=many", "sweep.group_size=1.5"])
def test_bad_group_sizes_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="auto, or a whole number from 1"):
        placing.parse([word])
    assert placing.parse(["sweep.group_size=auto", "threads=2"]) == {"sweep.group_size": "auto", "threads": 2}


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_automatic_group_size_is_one_on_a_cpu_and_the_most_that_fit_elsewhere(method: str) -> None:
    config = compose_run([*TINY, f"method={method}"])
    assert group_size("auto", config) == 1
    assert group_size(5, config) == 5
    sizes = [group_bytes(config, runs) for runs in range(1, LARGEST + 1)]
    assert sizes == sorted(sizes)  # type: ignore[type-var]
    for runs in (1, 3, LARGEST):
        room = needed_bytes(sizes[runs - 1]) / USABLE  # type: ignore[operator]
        assert most_that_fit(config, room * 1.0001) == runs
    unknown = with_values(config, {"model.source": "folder", "model.location": "/none"})
    assert most_that_fit(unknown, 1e15) == 1


def test_method_that_changes_base_weights_trains_alone(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As some PEFT starts do, it replaces values of a shared weight; no run may see the change of another."""

    def prepare(self: LoRA, layers: Any, context: Any) -> dict[str, float]:
        for layer in layers.values():
            layer.weight.data = layer.weight.data + layer.A.detach().mean()
        return {}

    def create(self: LoRA, layer: Any, generator: Any) -> None:
        add_lora_factors(layer, self.config.rank, generator)
        if not layer.weight.is_meta:
            layer.weight.data.add_(layer.A.detach().mean())

    names = list(plan.manifest.runs)[:2]
    for verb, function in (("prepare", prepare), ("create", create)):
        with monkeypatch.context() as patch:
            patch.setattr(LoRA, verb, function)
            sizes = record_group_sizes(patch)
            config = plan.configuration(names[0], {})
            patch.setattr(type(build(config.method)), verb, function)
            assert work(plan, tmp_path / verb / "alone", 1, names) == dict.fromkeys(names, "done")
            assert work(plan, tmp_path / verb / "group", 4, names) == dict.fromkeys(names, "done")
        assert sizes == [], "no runs were trained together"
        assert "changes the base weights in place" in capsys.readouterr().err
        for name in names:
            assert losses(tmp_path / verb / "group", name) == losses(tmp_path / verb / "alone", name)
            assert record(tmp_path / verb / "group", name).placing["group_size"] == 1
