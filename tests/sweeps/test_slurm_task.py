"""The job script as a SLURM task runs it: exit codes, requeuing, setup lines, quoting; and a real SLURM."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdsbench.__main__ import main
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.slurm_config import configure
from tests.conftest import ROOT
from tests.sweeps.slurm_scripts import sbatch_lines, submission_folder
from tests.sweeps.tools import tiny_plan


def test_plan_folder_with_special_characters_is_quoted_in_the_script(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch would replace % and a shell would run $(...), so the script must quote the name."""
    folder = tmp_path / "--wrap=x %j $(touch owned) `touch owned` 'q' \""
    plan = plans.read(tiny_plan(tmp_path, "seed=0").folder.rename(folder))
    stub = tmp_path / "worker.sh"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(slurm.sys, "executable", str(stub))
    monkeypatch.chdir(tmp_path)
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 0
    assert (cluster / "sbatch.log").read_text() == "--parsable job.sh\n"
    folder = submission_folder(plan)
    assert not any("%j" in line or "wrap" in line for line in sbatch_lines((folder / "job.sh").read_text()))
    given = {**os.environ, "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "77"}
    done = subprocess.run(["bash", "job.sh"], cwd=folder, env=given, capture_output=True, text=True)
    assert done.returncode == 0 and str(plan.folder) in done.stdout.splitlines(), done.stderr
    assert not list(tmp_path.rglob("owned"))


@pytest.fixture
def task(cluster: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs the script of an array's last task as SLURM would, with a shell command as its worker."""

    def run(worker: str, *words: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
        stub = tmp_path / "worker.sh"
        stub.write_text(f"#!/bin/bash\necho ran\n{worker}\n")
        stub.chmod(0o755)
        monkeypatch.setattr(slurm.sys, "executable", str(stub))
        folder = slurm.next_folder(plan)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.sh").write_text(slurm.script(plan, folder, 3, configure(["slurm=cpu", *words]), {}))
        given = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "77"}
        environment = {**os.environ, **given, "SLURM_RESTART_COUNT": str(restarts)}
        return subprocess.run(["bash", folder / "job.sh"], env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("end", ["kill -9 $$", "kill -USR1 $PPID; sleep 1; exit 130"])
def test_killed_or_interrupted_task_requeues_only_itself(task: Callable[..., Any], cluster: Path, end: str) -> None:
    """77 means both the last task and the whole array, so `scontrol requeue 77` would rerun finished tasks."""
    assert task(end).returncode > 128
    assert (cluster / "scontrol.log").read_text() == "requeue 77_2\n"
    task(end, "slurm.max_requeues=1", restarts=1)
    assert (cluster / "scontrol.log").read_text() == "requeue 77_2\n", "no more than slurm.max_requeues"


@pytest.mark.parametrize("code", [0, 3, 4])
def test_task_has_the_exit_code_of_its_worker(task: Callable[..., Any], cluster: Path, code: int) -> None:
    assert task(f"exit {code}").returncode == code
    assert not (cluster / "scontrol.log").exists()


def test_failing_setup_line_ends_the_task(task: Callable[..., Any], cluster: Path) -> None:
    done = task("exit 0", "slurm.setup=['export A=1', 'module load CUDAA/12', 'export B=2']")
    assert done.returncode == 3
    assert "setup failed with code 127: module load CUDAA/12" in done.stdout
    assert "ran" not in done.stdout
    assert "ran" in task("exit 0", "slurm.setup=['export A=1', 'true']").stdout


@pytest.mark.slurm
@pytest.mark.timeout(7200)
def test_runs_on_a_real_slurm_equal_runs_without_it(tmp_path: Path) -> None:
    """Runs are cancelled, killed, timed out, preempted, or lose their node; all records equal those without SLURM."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("starting SLURM needs root on Debian or Ubuntu")
    done = subprocess.run([ROOT / "scripts" / "slurm_demo.sh", tmp_path / "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "bitwise equal" in done.stdout
