"""The GPUs that a sweep uses, on a simulated machine, and the events and exit codes of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sdsbench.__main__ import main
from sdsbench.core.console import print_now
from sdsbench.sweeps import pool, worker
from sdsbench.sweeps.plan import Plan
from tests.sweeps.tools import held_by_another_process, put_record, tiny_plan


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate four GPUs; the returned file gets a line per started worker with its GPU and its options."""
    commands, log = tmp_path / "bin", tmp_path / "started"
    commands.mkdir()
    four = "".join(f"echo 'GPU {number}: simulated'\n" for number in range(4))
    for name, body in {"nvidia-smi": four, "python": f'echo "$CUDA_VISIBLE_DEVICES $@" >> {log}'}.items():
        (commands / name).write_text(f"#!/bin/sh\n{body}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    monkeypatch.setattr(pool.sys, "executable", str(commands / "python"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return log


@pytest.mark.parametrize(
    ("visible", "options", "gpus"),
    [
        (None, [], "0123"),
        ("2,3", [], "23"),
        ("2, 3,-1,1", [], "23"),  # CUDA ignores the list from -1 on
        (None, ["--gpus=1,3"], "13"),
        ("2,3", ["--workers=5"], "22233"),
        (None, ["--gpus=1", "--workers=2"], "11"),
    ],
)
def test_sweep_starts_workers_on_the_visible_gpus(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, options: list[str], gpus: str
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main(["sweep", str(plan.folder), "device=auto", *options]) == 4, "the simulated workers finish no run"
    lines = sorted(started.read_text().splitlines())
    assert "".join(line.partition(" ")[0] for line in lines) == gpus
    assert all('--set=device="cuda"' in line for line in lines)
    assert {line.partition("--offset=")[2][0] for line in lines} == set("01234"[: len(gpus)])


@pytest.mark.parametrize(("visible", "options"), [("2,3", ["--gpus=0"]), ("", ["--gpus=0"]), ("-1", ["device=cuda"])])
def test_absent_gpus_are_refused(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, options: list[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main(["sweep", str(plan.folder), *options]) == 2
    assert not started.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU works")
def test_unusable_gpu_is_reported_and_no_run_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["sweep", str(plan.folder), "device=auto"]) == 3
    assert "this worker's GPU cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def worker_exit_code(plan: Plan) -> int:
    return CliRunner().invoke(worker.main, [str(plan.folder)]).exit_code


def test_exit_code_of_a_worker_follows_from_its_runs(tmp_path: Path) -> None:
    """A SLURM task whose run failed, or that ran nothing, must not be COMPLETED."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    for name in names:
        put_record(plan, tmp_path / "runs", name)
    assert worker_exit_code(plan) == 0
    put_record(plan, tmp_path / "runs", names[0], "failed", None)
    assert worker_exit_code(plan) == pool.UNFINISHED
    put_record(plan, tmp_path / "runs", names[0], "running", None)
    with held_by_another_process(tmp_path / "runs" / names[0]):
        assert worker_exit_code(plan) == pool.UNFINISHED


def test_standard_output_of_a_worker_holds_events_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    monkeypatch.setattr(worker.Worker, "work", lambda self, stop: (print_now("decoded"), self.emit("take", run="r")))
    result = CliRunner().invoke(worker.main, [str(plan.folder)])
    assert result.stdout.splitlines() == ['{"event": "take", "run": "r"}']
    assert "decoded" in result.stderr


def test_sweep_ends_where_native_code_of_a_worker_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such lines bypass Python's standard output: text, bytes that are no text, other JSON, nested too deeply."""
    python, printed = tmp_path / "python", tmp_path / "printed"
    foreign = b'loading\n\xff\n5\n{"loss": 1}\n{"event": "other"}\n' + b"[" * 100_000 + b"\n"
    events = b'{"event": "take", "run": "r"}\n{"event": "end", "run": "r", "status": "done", "message": ""}\n'
    printed.write_bytes(foreign + events)
    python.write_text(f"#!/bin/sh\ncat {printed}\n")
    python.chmod(0o755)
    monkeypatch.setattr(pool.sys, "executable", str(python))
    plan = tiny_plan(tmp_path, "seed=0")
    workers = pool.Pool(plan, [pool.Allocation("cpu0", 1)], {}, [])
    ended: list[pool.EndedRun] = []
    for _ in range(10):
        working, more = workers.step(1.0)
        ended += more
        if not working:
            break
    assert not working, "the reader passes on the worker's end"
    assert [(run.run, run.status) for run in ended] == [("r", "done")]
    (log,) = (plan.folder / "logs").iterdir()
    assert log.read_text().startswith('loading\n\ufffd\n5\n{"loss": 1}\n')


def test_sweep_names_an_output_folder_outside_of_the_working_folder(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A received plan may name any folder. Folders on the command line or below the working folder are not named."""
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "elsewhere").mkdir()
    for folder, words, named in (
        (tmp_path / "elsewhere", [], True),
        (tmp_path, [], False),
        (tmp_path / "elsewhere", ["output_root=here"], False),
    ):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        assert main(["sweep", str(plan.folder), "device=auto", *words]) == 4
        assert (f"the plan writes its runs to {tmp_path / 'runs'}" in capsys.readouterr().out) == named
