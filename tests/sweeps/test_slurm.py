"""What is sent to SLURM and how its answers are read; the real thing is scripts/slurm_demo.sh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, DamagedFile, Refused
from sdsbench.core.record import Failure
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan, TunedCell
from sdsbench.sweeps.pool import Allocation, Pool
from sdsbench.sweeps.slurm_config import SlurmConfig, configure, time_limit_seconds
from tests.conftest import ROOT
from tests.sweeps.tools import TINY, put_record, tiny_plan

FAKE = {
    "sbatch": 'echo "$@" >> "$0.log"; echo 77',
    "squeue": 'echo "$@" >> "$0.log"; cat "$0.answer" 2>/dev/null || true',
    "scontrol": "if [ $1 = show ]; then echo 'MaxArraySize            = 3'; else echo $@ >> $0.log; fi",
    "sleep": "",
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


def script_of(plan: Plan, *words: str) -> str:
    """What sbatch would get."""
    return slurm.script(plan, slurm.next_folder(plan), 3, configure(words), {})


def sbatch_lines(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def submission_folder(plan: Plan) -> Path:
    return plan.folder / "submissions" / "001"


def test_what_is_left_is_sent_in_arrays_that_slurm_takes(
    cluster: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_record(plan, tmp_path / "runs", names[1], "failed", None)
    assert main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=1", "slurm.time=00:10:00"]) == 0
    assert "1 run(s) have failed and are not sent: `sdsbench retry" in capsys.readouterr().err
    sent = slurm.submissions(plan)
    assert [len(submission.tasks) for submission in sent] == [3, 3]  # six left, three a job
    assert [key for submission in sent for (key,) in submission.tasks] == names[2:]
    lines = sbatch_lines((submission_folder(plan) / "job.sh").read_text())
    assert {"--array=0-2", "--time=0-00:10:00", "--signal=B:USR1@60"} <= set(lines)
    assert not any("gres" in line for line in lines)
    assert json.loads((submission_folder(plan) / "task-1.json").read_text()) == [names[3]]
    assert subprocess.run(["bash", "-n", str(submission_folder(plan) / "job.sh")]).returncode == 0


def test_what_slurm_has_is_not_sent_again(cluster: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(plan.manifest.runs)
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|RUNNING|None\n77|1|FAILED|NonZeroExitCode\n99|1|RUNNING|None\n")
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    assert [submission.tasks for submission in slurm.submissions(plan)] == [[names[:4], names[4:]], [names[4:]]]
    capsys.readouterr()
    assert main(["status", str(plan.folder)]) == 0
    assert "77_0 RUNNING" in capsys.readouterr().out


def test_final_runs_begin_when_the_tuning_that_they_wait_for_has_ended(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {seed: [0, 1]}}]\ntune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [9], extend: 1}\n"
    )
    tuned = tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))
    assert main(["submit", str(tuned.folder), "slurm=cpu"]) == 0
    assert [len(submission.tasks[0]) for submission in slurm.submissions(tuned)] == [2, 2, 2]
    calls = (cluster / "sbatch.log").read_text().splitlines()
    assert calls == [
        "--parsable job.sh", "--parsable --dependency=afterany:77 job.sh",
        "--parsable --dependency=afterany:77:77 job.sh",
    ]  # fmt: skip


def test_cancel_takes_only_live_tasks(cluster: Path, plan: Plan) -> None:
    main(["submit", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=4"])
    (cluster / "squeue.answer").write_text("77|0|PENDING|Resources\n77|1|COMPLETED|None\n")
    assert main(["cancel", str(plan.folder), "--run", list(plan.manifest.runs)[6]]) == 0
    assert not (cluster / "scancel.log").exists()
    assert main(["cancel", str(plan.folder)]) == 0
    assert (cluster / "scancel.log").read_text() == "77_0\n"
    assert "--name=sdsbench-" in (cluster / "squeue.log").read_text(), "others' jobs may have the same numbers"


def put_failure(plan: Plan, root: Path, identity: str, status: str, kind: str) -> None:
    record = put_record(plan, root, identity, status, None)
    record.failure = Failure(type=kind, message="made up")
    write_record(root / identity, record)


def test_retry_takes_what_may_end_otherwise(
    cluster: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(plan.manifest.runs)
    put_record(plan, tmp_path / "runs", names[0])
    put_failure(plan, tmp_path / "runs", names[1], "failed", "TrainingFailed")  # its loss was not finite
    put_failure(plan, tmp_path / "runs", names[2], "oom", "TrainingFailed")
    put_failure(plan, tmp_path / "runs", names[3], "failed", "Died")
    put_failure(plan, tmp_path / "runs", names[4], "timeout", "Interrupted")
    assert main(["retry", "--slurm", str(plan.folder), "slurm=cpu"]) == 0
    assert "not tried again: 1 run(s) whose training failed" in capsys.readouterr().out
    (sent,) = slurm.submissions(plan)
    assert sent.tasks == [names[2:5]]
    assert "--retry" in (submission_folder(plan) / "job.sh").read_text()
    assert main(["retry", "--failed", str(plan.folder), "slurm=cpu", "slurm.runs_per_task=9"]) == 0
    assert slurm.submissions(plan)[-1].tasks == [names[1:5]], "where the plan was sent before"
    assert main(["retry", "--run", names[1], "--run", names[0], str(plan.folder), "slurm=cpu"]) == 0
    assert slurm.submissions(plan)[-1].tasks == [names[1:2]]
    assert f"not tried again: {names[0]} is done" in capsys.readouterr().out


def test_what_is_asked_for_reaches_the_script(cluster: Path, plan: Plan) -> None:
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
    assert "'--set=device=\"cuda\"'" in script, "not on the CPU where the GPU does not work"


def test_several_gpus_have_a_worker_each(cluster: Path, plan: Plan) -> None:
    script = script_of(plan, "slurm.gpus=4", "slurm.cpus=32")
    assert "--gres=gpu:4" in sbatch_lines(script)
    assert "-m sdsbench sweep" in script and "'device=\"cuda\"'" in script


def test_gpus_for_runs_that_compute_on_the_cpu_are_refused(
    cluster: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.manifest.placing["device"] == "cpu"
    assert main(["submit", str(plan.folder)]) == 2
    assert "device='cpu': accepted: cuda, since slurm.gpus=1" in capsys.readouterr().err


def test_a_dry_run_prints_the_script_and_sends_nothing(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["submit", "--dry-run", str(plan.folder), "slurm=cpu"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n")
    assert not (plan.folder / "submissions").exists()


def test_without_slurm_submit_says_so(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 3
    assert "no SLURM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("4:00", 240), ("100:00:00", 360000), ("2-0", 172800), ("2-12:30", 217800),
        ("1-00:00:30", 86430), ("4h", 14400), ("30m", 1800), ("2d", 172800),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    config = configure([f"slurm.time={text}", "slurm.signal_seconds=1"])
    assert config.seconds == seconds == time_limit_seconds(config.time_limit)


def test_a_cluster_file_inherits(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    file = tmp_path / "slurm" / "mine.yaml"
    file.write_text("defaults: [gpu]\npartition: long\naccount: abc\n")
    mine, gpu = configure(["slurm=mine"], [str(tmp_path)]), configure([])
    assert (mine.partition, mine.account) == ("long", "abc")
    assert mine.model_copy(update={"partition": None, "account": None}) == gpu
    file.write_text("defaults: [gpu]\ntime: 4:00\n")  # 240 to YAML, in no unit
    with pytest.raises(ConfigError, match="in quotes in a file"):
        configure(["slurm=mine"], [str(tmp_path)])


@pytest.mark.parametrize(
    "word",
    [
        'slurm.memory="--wrap=x"', "slurm.memory='4G\n#SBATCH --wrap=x'", 'slurm.partition="--wrap=x"',
        "slurm.account=%x",
        "slurm.qos='a b'", "slurm.constraint=--wrap", 'slurm.container="--bind=/etc"', "slurm.extra=['a\n#SBATCH -W']",
        'slurm.extra=["rm -rf"]', "slurm.mail_user=-x", "slurm.mail_type=[SOMETIMES]", "slurm.binds=['-x']",
        "slurm.time=tomorrow", "slurm.time=1:0:0", "slurm.signal_seconds=86400", "slurm.gpus=-1",
    ],
)  # fmt: skip
def test_no_value_becomes_an_option_or_a_line(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure([word])
    assert [problem.key for problem in caught.value.problems] == [word.partition("=")[0]]


ALLOWED = {("extra", "--wrap=x"), *((key, text) for key in ("binds", "container") for text in ("a%b", "a b"))}


@pytest.mark.parametrize("value", ["--wrap=x", "a\n#SBATCH --wrap=x", "--a\n#SBATCH --wrap=x", "a%b", "a b"])
def test_every_text_that_sbatch_gets_has_its_rule(value: str) -> None:
    """A key that is new, or whose rule is lost, is found here; `setup` is lines of the job's own script."""
    texts = {key: str(field.annotation) for key, field in SlurmConfig.model_fields.items() if key != "setup"}
    keys = [key for key, kind in texts.items() if "str" in kind or "Literal" in kind]
    assert len(keys) == 12
    for key in keys:
        if (key, value) not in ALLOWED:
            with pytest.raises(ConfigError) as caught:
                configure([f"slurm.{key}=['{value}']" if "list" in texts[key] else f"slurm.{key}='{value}'"])
            assert caught.value.problems[0].key.startswith(f"slurm.{key}"), key


def test_a_folder_of_any_name_is_a_folder_in_the_script(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch replaces %, a shell runs $(...): neither gets the name raw."""
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


def test_names_of_plans_follow_one_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "x\ntouch /tmp/owned"
    for name in (line, "../x", "-x", "a%b", "a//b", ".x", "", "x" * 101):
        made = main(["plan", *TINY, f"--name={name}", f"--folder={tmp_path / 'made'}"])
        assert (made == 0) == (name == ""), name  # without one it is a hash
    assert main(["plan", *TINY, "--folder", str(tmp_path / line)]) == 2
    assert "without control characters" in capsys.readouterr().err
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "s.yaml").write_text("name: ../../x\nblocks: [{axes: {seed: [0]}}]\n")
    with pytest.raises(ConfigError, match="name"):
        tiny_plan(tmp_path, "sweep=s", config_dirs=(str(tmp_path),))


@pytest.mark.parametrize("change", ["name", "run", "cell", "final"])
def test_a_received_manifest_with_other_names_is_refused(tmp_path: Path, change: str) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (run,) = plan.manifest.runs.values()
    manifest = plan.manifest.model_copy(deep=True)
    (known,) = plan.manifest.runs
    cell = TunedCell(
        point={}, key="train.lr", grid=[1.0, 2.0], seeds=[1], tuning=[[known]] * 2, final={"0": [known] * 2}
    )
    if change == "name":
        manifest.name = "x\ntouch /tmp/owned"
    elif change == "run":
        manifest.runs["../../../elsewhere"] = run
    elif change == "cell":
        manifest.cells["../elsewhere"] = cell
    else:
        manifest.cells["0" * 12] = cell.model_copy(update={"final": {"0": ["../elsewhere"] * 2}})
    plans._write_manifest(plan.folder, manifest)
    with pytest.raises(DamagedFile, match="not a manifest"):
        plans.read(plan.folder)


def test_a_received_submission_with_another_job_is_refused(plan: Plan) -> None:
    folder = plan.folder / "submissions" / "001"
    folder.mkdir(parents=True)
    for job in ("--signal=9 1", "77_1", "x"):
        (folder / "submission.json").write_text(json.dumps({"job": job, "tasks": [["a"]]}))
        with pytest.raises(DamagedFile, match="not a submission"):
            slurm.submissions(plan)


def test_a_record_of_another_name_is_damaged(plan: Plan, tmp_path: Path) -> None:
    names = list(plan.manifest.runs)
    record = put_record(plan, tmp_path / "runs", names[0])
    write_record(tmp_path / "runs" / names[1], record)
    with pytest.raises(DamagedFile, match=f"its run id is {names[0]}, which is not the name of its folder"):
        read_record(tmp_path / "runs" / names[1] / "record.json")
    with pytest.raises(ValidationError, match="run_id"):
        write_record(tmp_path / "runs" / names[1], record.model_copy(update={"run_id": "../../escaped"}))


@pytest.fixture
def task(cluster: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the script of an array's last task as SLURM would, on a worker that does what it is told in shell."""

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
def test_a_task_that_goes_on_requeues_itself_alone(task: Callable[..., Any], cluster: Path, end: str) -> None:
    """77 is the last task and the whole array: `scontrol requeue 77` sends finished siblings back."""
    assert task(end).returncode > 128
    assert (cluster / "scontrol.log").read_text() == "requeue 77_2\n"
    task(end, "slurm.max_requeues=1", restarts=1)
    assert (cluster / "scontrol.log").read_text() == "requeue 77_2\n", "no more starts than asked for"


@pytest.mark.parametrize("code", [0, 3, 4])
def test_a_task_ends_as_its_worker(task: Callable[..., Any], cluster: Path, code: int) -> None:
    assert task(f"exit {code}").returncode == code
    assert not (cluster / "scontrol.log").exists()


def test_a_setup_line_that_fails_ends_the_task(task: Callable[..., Any], cluster: Path) -> None:
    done = task("exit 0", "slurm.setup=['export A=1', 'module load CUDAA/12', 'export B=2']")
    assert done.returncode == 3
    assert "setup failed with code 127: module load CUDAA/12" in done.stdout
    assert "ran" not in done.stdout
    assert "ran" in task("exit 0", "slurm.setup=['export A=1', 'true']").stdout


@pytest.mark.slurm
@pytest.mark.timeout(7200)
def test_real_slurm(tmp_path: Path) -> None:
    """Cancelled, killed, out of time, preempted, node failed: all records equal those of plans run without SLURM."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("starting SLURM needs root on Debian or Ubuntu")
    done = subprocess.run([ROOT / "scripts" / "slurm_demo.sh", tmp_path / "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "bitwise equal" in done.stdout


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_a_received_plan_leads_nothing_out_of_its_folder(
    kind: str, cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "target").mkdir()
    for name in ("logs", "submissions"):
        if kind == "link":
            (plan.folder / name).symlink_to(tmp_path / "target")
        else:
            os.mkfifo(plan.folder / name)
    with pytest.raises(Refused, match="logs"):
        Pool(plan, [Allocation("cpu-0", 1)], {}, [])
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 2
    assert "submissions: accepted: a" in capsys.readouterr().err
    assert list((tmp_path / "target").iterdir()) == [] and not (cluster / "sbatch.log").exists()


def test_a_folder_among_submissions_that_is_none_is_passed_over(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    for name in ("007", "9x", "9" * 200):
        (plan.folder / "submissions" / name).mkdir(parents=True)
    assert slurm.next_folder(plan).name == "008"
