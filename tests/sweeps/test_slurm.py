"""Submitting, listing, cancelling and retrying runs with stand-ins for SLURM's commands."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.record import Failure
from sdsbench.core.run_folder import write_record
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.slurm_config import configure
from tests.sweeps.slurm_scripts import sbatch_lines, submission_folder
from tests.sweeps.tools import put_record, tiny_plan


def script_of(plan: Plan, *words: str) -> str:
    """The script that sbatch would get."""
    return slurm.script(plan, slurm.next_folder(plan), 3, configure(words), {})


def test_unfinished_runs_are_submitted_in_arrays_of_at_most_slurms_size(
    cluster: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_record(plan, tmp_path / "runs", names[1], "failed", None)
    assert main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=1", "slurm.time=00:10:00"]) == 0
    assert "1 run(s) have failed and are not sent: `sdsbench retry" in capsys.readouterr().err
    sent = slurm.submissions(plan)
    assert [len(submission.tasks) for submission in sent] == [3, 3]  # six unfinished runs, three per job
    assert [key for submission in sent for (key,) in submission.tasks] == names[2:]
    lines = sbatch_lines((submission_folder(plan) / "job.sh").read_text())
    assert {"--array=0-2", "--time=0-00:10:00", "--signal=B:USR1@60"} <= set(lines)
    assert not any("gres" in line for line in lines)
    assert json.loads((submission_folder(plan) / "task-1.json").read_text()) == [names[3]]
    assert subprocess.run(["bash", "-n", str(submission_folder(plan) / "job.sh")]).returncode == 0


def test_runs_that_slurm_has_are_not_submitted_again(
    cluster: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(plan.manifest.runs)
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|RUNNING|None\n77|1|FAILED|NonZeroExitCode\n99|1|RUNNING|None\n")
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    assert [submission.tasks for submission in slurm.submissions(plan)] == [[names[:4], names[4:]], [names[4:]]]
    capsys.readouterr()
    assert main(["status", str(plan.folder)]) == 0
    assert "77_0 RUNNING" in capsys.readouterr().out


def tuned_plan(folder: Path, seeds: str, extend: int = 0) -> Plan:
    """A plan whose rate is tuned; called again, it adds the other seeds."""
    (folder / "sweep").mkdir(exist_ok=True)
    (folder / "sweep" / "t.yaml").write_text(
        f"name: t\nblocks: [{{axes: {{seed: [{seeds}]}}}}]\n"
        f"tune: {{key: train.lr, grid: [1e-3, 2e-3], seeds: [9], extend: {extend}}}\n"
    )
    return tiny_plan(folder, "sweep=t", config_dirs=(str(folder),))


def test_final_runs_depend_on_their_tuning_jobs(cluster: Path, tmp_path: Path) -> None:
    tuned = tuned_plan(tmp_path, "0, 1", extend=1)
    assert main(["submit", str(tuned.folder), "slurm=cpu"]) == 0
    assert [len(submission.tasks[0]) for submission in slurm.submissions(tuned)] == [2, 2, 2]
    calls = (cluster / "sbatch.log").read_text().splitlines()
    assert calls == [
        "--parsable job.sh", "--parsable --dependency=afterany:77 job.sh",
        "--parsable --dependency=afterany:77:77 job.sh",
    ]  # fmt: skip


def test_final_runs_that_are_sent_alone_depend_on_the_tuning_jobs_in_the_queue(cluster: Path, tmp_path: Path) -> None:
    tuned = tuned_plan(tmp_path, "0")
    assert main(["submit", str(tuned.folder), "slurm=cpu"]) == 0
    (cluster / "squeue.answer").write_text("77|0|PENDING|Resources\n")
    tuned = tuned_plan(tmp_path, "1")
    assert main(["submit", str(tuned.folder), "slurm=cpu"]) == 0
    ((final,),) = slurm.submissions(tuned)[-1].tasks
    assert final.endswith(":1")
    assert (cluster / "sbatch.log").read_text().splitlines()[-1] == "--parsable --dependency=afterany:77 job.sh"


def test_cancel_takes_final_runs_as_status_names_them(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tuned_plan(tmp_path, "0, 1")
    (cell,) = tuned.manifest.cells.values()
    for (name,), value in zip(cell.tuning, (0.5, 0.25), strict=True):
        put_record(tuned, tmp_path / "runs", name, value=value)
    assert main(["submit", str(tuned.folder), "slurm=cpu", "slurm.runs_per_task=1"]) == 0
    (cluster / "squeue.answer").write_text("77|0|PENDING|Resources\n77|1|PENDING|Resources\n")
    final = cell.final["1"][0]
    assert main(["status", str(tuned.folder)]) == 0
    assert final in capsys.readouterr().out
    assert main(["cancel", str(tuned.folder), "--run", final]) == 0
    assert (cluster / "scancel.log").read_text() == "77_1\n"
    (slot,) = [slot.key for slot in tuned.slots() if slot.seed == "0"]
    assert main(["cancel", str(tuned.folder), "--run", slot]) == 0
    assert (cluster / "scancel.log").read_text() == "77_1\n77_0\n"


def test_cancel_takes_only_active_tasks(cluster: Path, plan: Plan) -> None:
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|PENDING|Resources\n77|1|COMPLETED|None\n")
    assert main(["cancel", str(plan.folder), "--run", list(plan.manifest.runs)[6]]) == 0
    assert not (cluster / "scancel.log").exists()
    assert main(["cancel", str(plan.folder)]) == 0
    assert (cluster / "scancel.log").read_text() == "77_0\n"
    assert "--name=sdsbench-" in (cluster / "squeue.log").read_text(), (
        "job numbers alone could be those of other users' jobs"
    )


def put_failure(plan: Plan, root: Path, identity: str, status: str, kind: str) -> None:
    record = put_record(plan, root, identity, status, None)
    record.failure = Failure(type=kind, message="made up")
    write_record(root / identity, record)


def test_retry_takes_runs_that_may_succeed_and_failed_training_on_request(
    cluster: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_failure(plan, tmp_path / "runs", names[1], "failed", "TrainingFailed")  # for example, its loss was not finite
    put_failure(plan, tmp_path / "runs", names[2], "oom", "TrainingFailed")
    put_failure(plan, tmp_path / "runs", names[3], "failed", "Died")
    put_failure(plan, tmp_path / "runs", names[4], "timeout", "Interrupted")
    assert main(["retry", "--slurm", str(plan.folder), "slurm=cpu"]) == 0
    assert "not tried again: 1 run(s) whose training failed" in capsys.readouterr().out
    (sent,) = slurm.submissions(plan)
    assert sent.tasks == [names[2:5]]
    assert "--retry" in (submission_folder(plan) / "job.sh").read_text()
    assert main(["retry", "--failed", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=9"]) == 0
    assert slurm.submissions(plan)[-1].tasks == [names[1:5]], "to SLURM, as the plan was submitted before"
    assert main(["retry", "--run", names[1], "--run", names[0], str(plan.folder), "slurm=cpu"]) == 0
    assert slurm.submissions(plan)[-1].tasks == [names[1:2]]
    assert f"not tried again: {names[0]} is done" in capsys.readouterr().out


def test_slurm_options_are_in_the_script(cluster: Path, plan: Plan) -> None:
    words = ["slurm.gpu_type=a6000", "slurm.partition=long", "slurm.container=/images/s.sif", "slurm.max_parallel=2"]
    words += ['slurm.extra=["--exclude=n7"]', "slurm.setup=['module load cuda']", "device=auto", "slurm.time=4h"]
    words += ["slurm.mail_user=a@b.org", "slurm.mail_type=[FAIL,END]", "slurm.constraint='a100|h100'", "slurm.cpus=6"]
    words += ['slurm.binds=["/data","/scratch:/tmp"]', "slurm.runs_per_task=3", "sweep.group_size=2"]
    assert main(["submit", str(plan.folder), *words]) == 0
    script = (submission_folder(plan) / "job.sh").read_text()
    assert {
        "--gres=gpu:a6000:1", "--partition=long", "--exclude=n7", "--array=0-2%2", "--mail-user=a@b.org",
        "--mail-type=FAIL,END", "--constraint=a100|h100", "--time=0-04:00:00",
    } <= set(sbatch_lines(script))  # fmt: skip
    assert "\nmodule load cuda\n" in script and "export HF_HUB_OFFLINE=1" in script
    bound = "apptainer exec --nv --bind=/data --bind=/scratch:/tmp /images/s.sif python -m sdsbench.sweeps.worker"
    assert bound in script
    assert "'--set=device=\"cuda\"'" in script, "an unusable GPU must not be replaced by the CPU"


def test_task_with_several_gpus_starts_one_worker_each(cluster: Path, plan: Plan) -> None:
    script = script_of(plan, "slurm.gpus=4", "slurm.cpus=32")
    assert "--gres=gpu:4" in sbatch_lines(script)
    assert "-m sdsbench sweep" in script and "'device=\"cuda\"'" in script


def test_gpus_for_runs_that_compute_on_the_cpu_are_refused(
    cluster: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.manifest.placing["device"] == "cpu"
    assert main(["submit", str(plan.folder)]) == 2
    assert "device='cpu': accepted: cuda, since slurm.gpus=1" in capsys.readouterr().err


def test_dry_run_prints_the_script_and_submits_nothing(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["submit", "--dry-run", str(plan.folder), "slurm=cpu"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n")
    assert not (plan.folder / "submissions").exists()


def test_submit_without_slurm_is_refused(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 3
    assert "no SLURM" in capsys.readouterr().err
