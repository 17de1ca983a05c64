"""Hydra's launchers and sweepers: failed jobs, interruptions, and the score that a sweeper optimises."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from sdsbench.__main__ import main
from sdsbench.cli.shared import hydra_jobs
from sdsbench.core.errors import ConfigError, Interrupted, Problem, TrainingFailed
from sdsbench.core.record import Record, Score, headline
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.keeper import _new_record
from tests.conftest import ROOT

FAST = [
    "model=micro", "method=lora", "data.source=embedded", "data.train_limit=32", "train.max_steps=4", "eval.limit=2",
    "threads=1", "eval.untrained=false", "task.max_new_tokens=4", "train.clip_norm=null", "train.batch_size=2",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_multirun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdsbench", "-m", *FAST, f"output_root={folder / 'runs'}", *words]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def statuses(folder: Path) -> list[str]:
    return sorted(read_record(path).status for path in folder.glob("runs/*/record.json"))


@pytest.mark.parametrize(
    "error", [ConfigError([Problem("a", 1, "2", "b")]), TrainingFailed("no", "oom"), Interrupted("no", "timeout")]
)
def test_errors_survive_pickling(error: Exception) -> None:
    unpickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - multiprocessing pickles them too
    assert (type(unpickled), str(unpickled), vars(unpickled)) == (type(error), str(error), vars(error))


def test_value_of_a_job_is_its_headline_score() -> None:
    record: Record = _new_record(compose_run(["model=micro", "method=lora"]), "0" * 16)
    assert headline(record) is None
    common = {"evaluation": "gsm8k", "version": 1, "n": 4}
    record.scores = [
        Score(**common, scorer="flexible", stage="untrained", value=0.1, headline=True),
        Score(**common, scorer="strict", stage="trained", value=0.3),
        Score(**common, scorer="flexible", stage="trained", value=0.5, headline=True),
    ]
    assert headline(record) == 0.5
    beside = common | {"evaluation": "text"}
    record.scores.append(Score(**beside, scorer="loss", stage="trained", value=2.5, headline=True, retention=True))
    assert headline(record) == 0.5, "a score of retention is none of the task"
    record.task = "commonsense"
    record.means = {"commonsense": {"commonsense": ["boolq", "piqa"], "other": ["boolq"]}}
    record.scores = [
        Score(evaluation=name, version=1, n=4, scorer="s", stage="trained", value=value, headline=True)
        for name, value in (("boolq", 0.2), ("piqa", 0.4), ("boolq_ranked", 0.9))
    ]
    assert headline(record) == pytest.approx(0.3)
    del record.scores[1]
    assert headline(record) is None, "no mean of a part"
    del record.scores[0]
    assert headline(record) == 0.9, "with likelihood alone, the run has none of the mean's evaluations"


@pytest.mark.slow  # 46 s each
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launcher_reports_failed_jobs(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher", reason="an optional plugin")
    more = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    done = run_multirun(tmp_path, f"hydra/launcher={launcher}", *more, "train.lr=1e-3,1e30", "seed=0,1")
    assert done.returncode == 4, done.stderr[-3000:]
    assert "sdsbench: step" in done.stderr and "not finite" in done.stderr and "Traceback" not in done.stderr
    assert statuses(tmp_path) == ["done", "done", "failed", "failed"]
    assert run_multirun(tmp_path, f"hydra/launcher={launcher}", *more, "seed=0,1").returncode == 0


@pytest.mark.slow  # needs the optuna sweeper
def test_optuna_optimises_scores_and_reports_failures(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="an optional plugin")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "train.lr=choice(1e-3,2e-3)"]
    done = run_multirun(tmp_path, *words, "hydra.sweeper.direction=maximize")
    assert done.returncode == 0, done.stderr[-3000:]
    best = OmegaConf.load(tmp_path / "runs" / ".multirun" / "optimization_results.yaml")["best_value"]
    scores = [headline(read_record(path)) for path in tmp_path.glob("runs/*/record.json")]
    assert best == max(score for score in scores if score is not None)
    failed = run_multirun(tmp_path, *words[:-1], "train.lr=choice(1e30)")
    assert failed.returncode == 4 and "Traceback" not in failed.stderr, failed.stderr[-3000:]
    tolerant = ["hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.sampler.seed=1"]
    (tmp_path / "some").mkdir()
    some = run_multirun(
        tmp_path / "some",
        *words[:2],
        "hydra.sweeper.direction=maximize",
        *tolerant,
        "train.lr=choice(1e-3,2e-3,1e30)",
        "hydra.sweeper.n_jobs=1",
    )
    assert some.returncode == 4 and "Traceback" not in some.stderr, some.stderr[-3000:]
    assert (tmp_path / "some" / "runs" / ".multirun" / "optimization_results.yaml").is_file()


def _wait_for_training(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not any(
        b'"train"' in path.read_bytes() for path in folder.glob("runs/*/metrics.jsonl")
    ):
        time.sleep(0.1)


LONG = ["train.max_steps=100000", "train.checkpoint_every=100000", "seed=0,1,2"]


def interrupted_multirun(folder: Path, group: bool, number: int, *words: str) -> tuple[int, str]:
    """Interrupt a multirun once its first run trains; returns its exit code and error output."""
    command = [sys.executable, "-m", "sdsbench", "-m", *FAST, f"output_root={folder / 'runs'}", *LONG, *words]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    _wait_for_training(process, folder)
    (os.killpg if group else os.kill)(process.pid, number)
    _, text = process.communicate()
    return process.returncode, text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_multirun_stops_after_the_interrupted_run(tmp_path: Path, number: int) -> None:
    code, text = interrupted_multirun(tmp_path, True, number)
    assert code == 130, text
    assert text.count("stopping after this step") == 1 and "is saved; the same command continues" in text
    assert "Traceback" not in text
    assert statuses(tmp_path) == ["preempted"], "the others did not begin"
    assert list(tmp_path.glob("runs/*/checkpoint-[1-9]*")), "the interrupted run has a checkpoint"


@pytest.mark.slow  # 16 s each
@pytest.mark.parametrize("group", [True, False], ids=["Ctrl-C in a terminal", "a signal to the parent"])
def test_launched_jobs_stop_with_their_state_saved(tmp_path: Path, group: bool) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="an optional plugin")
    code, text = interrupted_multirun(
        tmp_path, group, signal.SIGINT, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert code == 130, text
    assert "Traceback" not in text
    assert set(statuses(tmp_path)) == {"preempted"} and len(statuses(tmp_path)) < 3
    assert list(tmp_path.glob("runs/*/checkpoint-[1-9]*"))


def test_signal_between_jobs_starts_no_other_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def run(_composed: object, _folders: object) -> float:
        if hydra_jobs._stopped:
            raise Interrupted("it had not begun")
        started.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.5

    monkeypatch.setattr(hydra_jobs, "_run", run)
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "model=micro", "seed=0,1,2", "hydra/hydra_logging=none"]) == 130
    assert started == [1]


def test_interrupted_wait_for_slurm_jobs_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """The jobs are processes of SLURM, so the signal to this process stops none of them."""
    with pytest.raises(KeyboardInterrupt), hydra_jobs._StopJobs(in_slurm=True):
        os.kill(os.getpid(), signal.SIGINT)
    text = capfd.readouterr().err
    assert "stay with SLURM" in text and "stopping after this step" not in text


@pytest.mark.parametrize(("executor", "code"), [("slurm", 130), ("local", None)])
def test_interrupted_slurm_job_exits_without_a_result(
    executor: str, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit writes an exception as the job's result, but not SystemExit."""
    jobs = []

    def hydra_main(**_: object) -> Callable[[Callable[..., object]], Callable[[], None]]:
        return lambda job: lambda: jobs.append(job)

    def interrupted(*_: object) -> float:
        raise Interrupted("stopped by SIGTERM; the state is saved")

    monkeypatch.setattr(hydra_jobs.hydra, "main", hydra_main)
    monkeypatch.setattr(hydra_jobs, "_run", interrupted)
    assert hydra_jobs.run_hydra(["-m"], ["model=micro"], []) == 0
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # in the job's process
    with pytest.raises(SystemExit if code else Interrupted) as raised:
        jobs[0](None)
    assert code is None or raised.value.code == code


@pytest.mark.parametrize(("executor", "code"), [("slurm", 4), ("local", 0)])
def test_failed_job_ends_its_slurm_process_with_an_error(executor: str, code: int, tmp_path: Path) -> None:
    """Hydra passes the error to submitit as a result, after which its process exits with 0: a success for SLURM."""
    script = """
import os, sys
from sdsbench.cli.shared import hydra_jobs
from sdsbench.core.errors import TrainingFailed

def fails(*_):
    raise TrainingFailed("no")

jobs = []
hydra_jobs.hydra.main = lambda **_: lambda job: lambda: jobs.append(job)
hydra_jobs._run = fails
hydra_jobs.run_hydra(["-m"], ["model=micro"], [])
os.environ["SUBMITIT_EXECUTOR"] = sys.argv[1]
os.getpid = lambda: 1  # in the job's process
try:
    jobs[0](None)
except TrainingFailed:
    print("the result is written")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, executor], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (code, "the result is written\n"), done.stderr


def test_sweeper_receives_headline_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper optimises the return values of its jobs; this one only collects them."""
    received: list[object] = []

    class CollectingSweeper(Sweeper):
        def setup(self, **context: Any) -> None:
            self.launcher = Plugins.instance().instantiate_launcher(**context)

        def sweep(self, arguments: list[str]) -> None:
            jobs = self.launcher.launch([[*arguments, f"seed={seed}"] for seed in (0, 1)], initial_job_idx=0)
            received.extend(job.return_value for job in jobs)

    def collecting_sweeper(**context: Any) -> Sweeper:
        sweeper = CollectingSweeper()
        sweeper.setup(**context)
        return sweeper

    def execute(config: RunConfig) -> Record:
        record = _new_record(config, "0" * 16)
        common = {"evaluation": "gsm8k", "version": 1, "n": 4, "stage": "trained"}
        record.scores = [
            Score(**common, scorer="strict", value=0.9),
            Score(**common, scorer="flexible", value=(1 + config.seed) / 4, headline=True),
        ]
        return record

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra_jobs, "execute_announced", execute)
    monkeypatch.setattr(Plugins.instance(), "instantiate_sweeper", collecting_sweeper)
    assert main(["-m", "model=micro", "method=lora", "hydra/hydra_logging=none"]) == 0
    assert received == [0.25, 0.5]


@pytest.mark.slow  # 37 s
def test_submitit_restarts_a_preempted_job_which_resumes(tmp_path: Path) -> None:
    """submitit's preemption signal makes the run save its state and submitit start the job again."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="an optional plugin")
    words = ["hydra/launcher=submitit_local", "train.max_steps=300", "train.checkpoint_every=1000", "seed=0"]
    command = [sys.executable, "-m", "sdsbench", "-m", *FAST, f"output_root={tmp_path / 'runs'}", *words]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    _wait_for_training(process, tmp_path)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "submitit.core._submit" in child.cmdline():
            child.send_signal(signal.SIGUSR2)
    _, text = process.communicate()
    assert process.returncode == 0, text
    (path,) = tmp_path.glob("runs/*/record.json")
    record = read_record(path)
    assert [attempt.status for attempt in record.attempts] == ["preempted", "done"]
    assert record.attempts[1].from_step > 0
