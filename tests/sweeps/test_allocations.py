"""Which GPUs a sweep uses, with device counts that are made up, and how workers that cannot work, or did not, end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sdsbench.__main__ import main
from sdsbench.sweeps import pool, worker
from sdsbench.sweeps.plan import Plan
from tests.sweeps.tools import held_by_another_process, put_record, tiny_plan


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four GPUs, and a file with a line for each worker that is started: its GPU and its options."""
    commands, log = tmp_path / "bin", tmp_path / "started"
    commands.mkdir()
    four = "".join(f"echo 'GPU {number}: made up'\n" for number in range(4))
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
        ("2, 3,-1,1", [], "23"),  # CUDA ends the list there
        (None, ["--gpus=1,3"], "13"),
        ("2,3", ["--workers=5"], "22233"),
        (None, ["--gpus=1", "--workers=2"], "11"),
    ],
)
def test_one_worker_a_gpu(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, options: list[str], gpus: str
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main(["sweep", str(plan.folder), "device=auto", *options]) == 4, "the made-up workers run nothing"
    lines = sorted(started.read_text().splitlines())
    assert "".join(line.partition(" ")[0] for line in lines) == gpus
    assert all('--set=device="cuda"' in line for line in lines)
    assert {line.partition("--offset=")[2][0] for line in lines} == set("01234"[: len(gpus)])


@pytest.mark.parametrize(("visible", "options"), [("2,3", ["--gpus=0"]), ("", ["--gpus=0"]), ("-1", ["device=cuda"])])
def test_gpus_that_are_not_there_are_refused(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, options: list[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main(["sweep", str(plan.folder), *options]) == 2
    assert not started.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU works")
def test_a_gpu_that_does_not_work_is_told_and_no_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["sweep", str(plan.folder), "device=auto"]) == 3
    assert "this worker's GPU cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def ends(plan: Plan) -> int:
    return CliRunner().invoke(worker.main, [str(plan.folder)]).exit_code


def test_a_worker_ends_as_its_runs_do(tmp_path: Path) -> None:
    """So that a task of SLURM whose run failed, or that ran nothing, is not COMPLETED."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    for name in names:
        put_record(plan, tmp_path / "runs", name)
    assert ends(plan) == 0
    put_record(plan, tmp_path / "runs", names[0], "failed", None)
    assert ends(plan) == pool.UNFINISHED
    put_record(plan, tmp_path / "runs", names[0], "running", None)
    with held_by_another_process(tmp_path / "runs" / names[0]):
        assert ends(plan) == pool.UNFINISHED


def test_a_plan_that_writes_outside_of_the_working_folder_says_so(
    started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan of somebody else names a folder, too; where the command line or the working folder decide, no word."""
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "elsewhere").mkdir()
    for folder, words, told in (
        (tmp_path / "elsewhere", [], True),
        (tmp_path, [], False),
        (tmp_path / "elsewhere", ["output_root=here"], False),
    ):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        assert main(["sweep", str(plan.folder), "device=auto", *words]) == 4
        assert (f"the plan writes its runs to {tmp_path / 'runs'}" in capsys.readouterr().out) == told
