"""What is sent to SLURM and how its answers are read; the real thing is scripts/slurm_demo.sh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan
from tests.conftest import ROOT
from tests.sweeps.tools import put_record, tiny_plan

FAKE = {
    "sbatch": 'echo "$@" >> "$0.log"; echo 77',
    "squeue": 'cat "$0.answer" 2>/dev/null || true',
    "scontrol": "echo 'MaxArraySize            = 3'",
    "scancel": 'echo "$@" >> "$0.log"',
    "sacct": "exit 1",
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for SLURM's commands, first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in FAKE.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return tiny_plan(tmp_path, "seed=range(0,8)")


def test_what_is_left_is_sent_in_arrays_that_slurm_takes(cluster: Path, plan: Plan, tmp_path: Path) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_record(plan, tmp_path / "runs", names[1], "failed", None)
    assert main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=1", "slurm.time=00:10:00"]) == 0
    sent = slurm.submissions(plan)
    assert [len(submission.tasks) for submission in sent] == [3, 3]  # six left, three a job
    assert [key for submission in sent for (key,) in submission.tasks] == names[2:]
    script = (sent[0].folder / "job.sh").read_text()
    assert "#SBATCH --array=0-2\n" in script
    assert "#SBATCH --time=00:10:00\n" in script
    assert "#SBATCH --signal=B:USR1@60\n" in script
    assert "gres" not in script
    assert json.loads((sent[0].folder / "task-1.json").read_text()) == [names[3]]
    assert subprocess.run(["bash", "-n", str(sent[0].folder / "job.sh")]).returncode == 0


def test_what_slurm_has_is_not_sent_again(cluster: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(plan.manifest.runs)
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|RUNNING|None\n77|1|FAILED|NonZeroExitCode\n99|1|RUNNING|None\n")
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    assert [submission.tasks for submission in slurm.submissions(plan)] == [[names[:4], names[4:]], [names[4:]]]
    capsys.readouterr()
    assert main(["status", str(plan.folder)]) == 0
    assert "77_0 RUNNING" in capsys.readouterr().out


def test_cancel_takes_only_live_tasks(cluster: Path, plan: Plan) -> None:
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|PENDING|Resources\n77|1|COMPLETED|None\n")
    assert main(["cancel", str(plan.folder), "--run", list(plan.manifest.runs)[6]]) == 0
    assert not (cluster / "scancel.log").exists()
    assert main(["cancel", str(plan.folder)]) == 0
    assert (cluster / "scancel.log").read_text() == "77_0\n"


def test_retry_sends_failed_runs_only(cluster: Path, plan: Plan, tmp_path: Path) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_record(plan, tmp_path / "runs", names[1], "failed", None)
    put_record(plan, tmp_path / "runs", names[2], "oom", None)
    assert main(["retry", "--failed", "--slurm", str(plan.folder), "slurm=cpu"]) == 0
    (sent,) = slurm.submissions(plan)
    assert sent.tasks == [names[1:3]]
    assert "--retry" in (sent.folder / "job.sh").read_text()


def test_gpu_container_and_options_reach_the_script(cluster: Path, plan: Plan) -> None:
    words = ["slurm.gpu_type=a6000", "slurm.partition=long", "slurm.container=/images/s.sif", "slurm.max_parallel=2"]
    words += ['slurm.extra=["--exclude=n7"]', "slurm.setup=['module load cuda']"]
    assert main(["submit", str(plan.folder), *words]) == 0
    script = (slurm.submissions(plan)[0].folder / "job.sh").read_text()
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert {"--gres=gpu:a6000:1", "--partition=long", "--exclude=n7", "--array=0-2%2"} <= set(options)
    assert "\nmodule load cuda\n" in script
    assert "apptainer exec --nv /images/s.sif python -m sdsbench.sweeps.worker" in script


def test_without_slurm_submit_says_so(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 3
    assert "no SLURM" in capsys.readouterr().err


@pytest.mark.slurm
@pytest.mark.timeout(7200)
def test_real_slurm(tmp_path: Path) -> None:
    """Cancelled, killed, out of time, node failed: all 12 records equal those of the plan run without SLURM."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("starting SLURM needs root on Debian or Ubuntu")
    done = subprocess.run([ROOT / "scripts" / "slurm_demo.sh", tmp_path / "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "bitwise equal" in done.stdout
