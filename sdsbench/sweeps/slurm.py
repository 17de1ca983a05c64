"""Plans on SLURM: a job array whose tasks are workers on frozen lists of slots. SLURM alone decides what runs when.

<plan>/submissions/<number>/
  task-<i>.json     the slots of array task i; what a task runs never changes after submission
  job.sh            what sbatch got (slurm/array.sh.j2)
  submission.json   the job's id; task-<i>.log, task-<i>.ended: written by the tasks
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sdsbench.core.errors import DamagedFile, SdsbenchError, Unavailable
from sdsbench.core.files import disk_errors, write_atomic
from sdsbench.core.lock import owned
from sdsbench.core.package import bundled_folder
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.slurm_config import SlurmConfig

LIVE = (
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING",
    "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
)  # fmt: skip


class SlurmRefused(SdsbenchError):
    """A SLURM command that failed."""

    exit_code = 3


@dataclass(frozen=True)
class Submission:
    """One job array of a plan."""

    folder: Path
    job: str
    tasks: list[list[str]]  # slot keys by task index


def submit(plan: Plan, slots: Sequence[str], slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool) -> list[str]:
    """Send slots as one array, or several where SLURM limits an array's size; returns the job ids.

    Raises Unavailable (no SLURM here), SlurmRefused (what sbatch said), DiskRefuses.
    """
    size = slurm.runs_per_task
    tasks = [list(slots[start : start + size]) for start in range(0, len(slots), size)]
    limit = max_array_size()
    parts = [tasks[start : start + limit] for start in range(0, len(tasks), limit)]
    with disk_errors(plan.folder.parent), owned(plan.folder / "submissions", wait=True):
        return [_submit_array(plan, part, slurm, placing, retry) for part in parts]


def _submit_array(
    plan: Plan, tasks: list[list[str]], slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool
) -> str:
    number = 1 + max((int(path.name) for path in (plan.folder / "submissions").glob("[0-9]*")), default=0)
    folder = (plan.folder / "submissions" / f"{number:03d}").resolve()
    folder.mkdir(parents=True)
    for index, keys in enumerate(tasks):
        (folder / f"task-{index}.json").write_text(json.dumps(keys))
    write_atomic(folder / "job.sh", _script(plan, folder, len(tasks), slurm, placing, retry))
    job = call("sbatch", "--parsable", str(folder / "job.sh")).strip().split(";")[0]
    write_atomic(folder / "submission.json", json.dumps({"job": job, "tasks": tasks}) + "\n")
    return job


def _script(plan: Plan, folder: Path, tasks: int, slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool) -> str:
    threads = placing.get("threads") or plan.manifest.placing["threads"] or slurm.cpus
    settings = [f"--set={key}={json.dumps(value)}" for key, value in {**placing, "threads": threads}.items()]
    container = ["apptainer", "exec", *(["--nv"] if slurm.gpus else []), slurm.container] if slurm.container else []
    python = "python" if slurm.container else sys.executable
    command = [
        *container, python, "-m", "sdsbench.sweeps.worker", str(plan.folder.resolve()), *settings,
        *(["--retry"] if retry else []),
    ]  # fmt: skip
    environment = Environment(loader=FileSystemLoader(bundled_folder("slurm")), undefined=StrictUndefined)
    return environment.get_template("array.sh.j2").render(
        name=f"sdsbench-{plan.manifest.name}".replace("/", "-").replace(" ", "-"),
        last=tasks - 1,
        slurm=vars(slurm),
        folder=shlex.quote(str(folder)),
        here=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
    )


def submissions(plan: Plan) -> list[Submission]:
    """All submissions of a plan, oldest first."""
    found = []
    for path in sorted((plan.folder / "submissions").glob("[0-9]*/submission.json")):
        try:
            content = json.loads(path.read_text())
            found.append(Submission(path.parent, str(content["job"]), [list(task) for task in content["tasks"]]))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"{path}: not a submission ({error!r}). Set its folder aside.") from None
    return found


def slot_states(plan: Plan) -> dict[str, tuple[str, str, str]]:
    """slot key -> (job_task, SLURM's state, its reason) from the newest submission that holds the slot.

    Empty where SLURM cannot be asked. The state is `gone` where SLURM has forgotten the task.
    """
    sent = submissions(plan)
    if not sent or shutil.which("squeue") is None:
        return {}
    known = _task_states({submission.job for submission in sent})
    found: dict[str, tuple[str, str, str]] = {}
    for submission in sent:
        for index, keys in enumerate(submission.tasks):
            task = f"{submission.job}_{index}"
            state, reason = known.get(task, ("gone", ""))
            found |= {key: (task, state, reason) for key in keys}
    return found


def _task_states(jobs: set[str]) -> dict[str, tuple[str, str]]:
    """<job>_<task> -> (state, reason), from accounting where there is any, then from what the controller remembers."""
    known: dict[str, tuple[str, str]] = {}
    if shutil.which("sacct"):
        listed = subprocess.run(
            ["sacct", "-n", "-P", "-X", "--array", "-j", ",".join(sorted(jobs)), "-o", "JobID,State"],
            capture_output=True,
            text=True,
        )
        if listed.returncode == 0:
            for line in listed.stdout.splitlines():
                task, _, state = line.partition("|")
                known[task] = (state.split()[0], "")
    for line in call("squeue", "-h", "-r", "-t", "all", "-o", "%F|%K|%T|%r").splitlines():
        job, index, state, reason = line.split("|", 3)
        if job in jobs:
            known[f"{job}_{index}"] = (state, "" if reason == "None" else reason)
    return known


def cancel(plan: Plan, wanted: Sequence[str] = ()) -> list[str]:
    """scancel the live tasks of a plan, or those that hold the wanted slots; returns them."""
    live: dict[str, None] = {}
    for key, (task, state, _) in slot_states(plan).items():
        if state in LIVE and (not wanted or key in wanted):
            live[task] = None
    if live:
        call("scancel", *live)
    return list(live)


def max_array_size() -> int:
    """How many tasks one array may have here."""
    for line in call("scontrol", "show", "config").splitlines():
        if line.startswith("MaxArraySize"):
            return max(1, int(line.split("=")[1]))
    return 1000


def call(*command: str) -> str:
    """Output of a SLURM command. Raises Unavailable, SlurmRefused."""
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]}: not found. This machine has no SLURM; `sdsbench sweep` runs the plan here.")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SlurmRefused(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def notes(states: Mapping[str, tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """(slot key, SLURM's words) for people."""
    for key, (task, state, reason) in states.items():
        yield key, f"{task} {state}" + (f" ({reason})" if reason else "")
