"""Run plans on SLURM: job arrays whose tasks are workers for fixed lists of slots. SLURM alone schedules the tasks.

<plan>/submissions/<number>/
  task-<i>.json     the slots of array task i, which never change after submission
  job.sh            the script for sbatch (from slurm/array.sh.j2)
  submission.json   the job's id and tasks
  task-<i>.log      output of array task i
  task-<i>.ended    number of the task's last start that reached the end of the script
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field, ValidationError

from sdsbench.core.allowed_names import require_printable
from sdsbench.core.containment import contained, folder_in
from sdsbench.core.errors import DamagedFile, SdsbenchError, Unavailable
from sdsbench.core.files import disk_errors, write_atomic
from sdsbench.core.limits import MANIFEST
from sdsbench.core.lock import owned
from sdsbench.core.package import bundled_folder
from sdsbench.core.reading import FileContent, first_fault, read_json
from sdsbench.sweeps.placing import as_settings, as_words
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.slurm_config import SlurmConfig

DEFAULT_ARRAY_SIZE = 1001
LIVE = (
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING",
    "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
)  # fmt: skip


class SlurmRefused(SdsbenchError):
    """A SLURM command failed."""

    exit_code = 3


def submit(
    plan: Plan, stages: Sequence[Sequence[str]], slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool = False
) -> list[str]:
    """Submit the slots of each stage as one job array, or several if SLURM limits an array's size; returns the job ids.

    Every stage after the first starts when all jobs of the plan that were submitted before have ended, whether they
    succeeded or not. Raises Unavailable (no SLURM here), SlurmRefused (with sbatch's message), DiskRefuses.
    """
    require_slurm()
    jobs: list[str] = []
    with disk_errors(plan.folder.parent), owned(folder_in(plan.folder, "submissions"), wait=True):
        earlier = sorted({task.partition("_")[0] for task, state, _ in slot_states(plan).values() if state in LIVE})
        for number, stage in enumerate(stages):
            after = [*earlier, *jobs] if number else []
            sent = [_submit_array(plan, part, slurm, placing, retry, after) for part in arrays(stage, slurm)]
            jobs += sent
    return jobs


def arrays(slots: Sequence[str], slurm: SlurmConfig) -> list[list[list[str]]]:
    """Split slots into tasks, and tasks into arrays of a size that SLURM accepts: [array][task][slot]."""
    size, limit = slurm.runs_per_task, max_array_size()
    tasks = [list(slots[start : start + size]) for start in range(0, len(slots), size)]
    return [tasks[start : start + limit] for start in range(0, len(tasks), limit)]


def _submit_array(
    plan: Plan,
    tasks: list[list[str]],
    slurm: SlurmConfig,
    placing: Mapping[str, Any],
    retry: bool,
    after: Sequence[str],
) -> str:
    folder = next_folder(plan)
    folder.mkdir(parents=True)
    for index, keys in enumerate(tasks):
        (folder / f"task-{index}.json").write_text(json.dumps(keys))
    write_atomic(folder / "job.sh", script(plan, folder, len(tasks), slurm, placing, retry))
    # Run in the submission's folder, so that --output is a relative path: sbatch would replace a % in an absolute one.
    dependency = [f"--dependency=afterany:{':'.join(after)}"] if after else []
    job = call("sbatch", "--parsable", *dependency, "job.sh", folder=folder).strip().split(";")[0]
    write_atomic(folder / "submission.json", Submission(job=job, tasks=tasks).model_dump_json() + "\n")
    return job


def next_folder(plan: Plan) -> Path:
    """The folder for the plan's next submission; it is not created here."""
    folder = contained(plan.folder, "submissions")
    names = (path.name for path in folder.glob("[0-9]*"))
    number = 1 + max((int(name) for name in names if name.isdecimal() and len(name) < 9), default=0)
    return (folder / f"{number:03d}").resolve()


def script(
    plan: Plan, folder: Path, tasks: int, slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool = False
) -> str:
    """The script for sbatch. Raises ConfigError if a path contains a control character."""
    require_printable("plan", folder)
    require_printable("working directory", Path.cwd())
    threads = placing.get("threads") or plan.placing["threads"] or max(1, slurm.cpus // max(1, slurm.gpus))
    placing = {**placing, "threads": threads, **({"device": "cuda"} if slurm.gpus else {})}
    container = []
    if slurm.container:
        container = ["apptainer", "exec", *(["--nv"] if slurm.gpus else [])]
        container += [*(f"--bind={bind}" for bind in slurm.binds), slurm.container]
    # S701 asks for HTML escaping, but this is a shell script, whose values are quoted for the shell.
    environment = Environment(loader=FileSystemLoader(bundled_folder("slurm")), undefined=StrictUndefined)  # noqa: S701
    environment.filters["quoted"] = shlex.quote
    return environment.get_template("array.sh.j2").render(
        name=job_name(plan),
        last=tasks - 1,
        slurm=slurm,
        folder=shlex.quote(str(folder)),
        here=shlex.quote(str(Path.cwd())),
        threads=threads,
        command=shlex.join([*container, *_worker_command(plan, slurm, placing, retry)]),
    )


def _worker_command(plan: Plan, slurm: SlurmConfig, placing: Mapping[str, Any], retry: bool) -> list[str]:
    """The command of a task: one worker, or with several GPUs `sdsbench sweep`, which runs a worker on each."""
    python, folder = "python" if slurm.container else sys.executable, str(plan.folder.resolve())
    again = ["--retry"] if retry else []
    if slurm.gpus > 1:
        return [python, "-m", "sdsbench", "sweep", folder, *as_words(placing), *again]
    return [python, "-m", "sdsbench.sweeps.worker", folder, *as_settings(placing), *again]


def job_name(plan: Plan) -> str:
    """The name of the plan's jobs in SLURM."""
    return f"sdsbench-{plan.manifest.name}".replace("/", "-")


class Submission(FileContent):
    """One job array of a plan, as stored in submission.json."""

    job: Annotated[str, Field(pattern=r"^\d+$")]
    tasks: list[list[str]]  # slot keys by task index


def submissions(plan: Plan) -> list[Submission]:
    """All submissions of a plan, oldest first."""
    found = []
    for path in sorted((plan.folder / "submissions").glob("[0-9]*/submission.json")):
        try:
            found.append(Submission.model_validate(read_json(path, MANIFEST)))
        except ValidationError as error:
            raise DamagedFile(f"{path}: not a submission: {first_fault(error)}. Set its folder aside.") from None
    return found


def slot_states(plan: Plan) -> dict[str, tuple[str, str, str]]:
    """slot key -> (job_task, SLURM's state, its reason) from the newest submission that contains the slot.

    Empty on a machine without squeue. The state is `gone` if SLURM no longer knows the task.
    """
    sent = submissions(plan)
    if not sent or shutil.which("squeue") is None:
        return {}
    known = _task_states({submission.job for submission in sent}, job_name(plan))
    found: dict[str, tuple[str, str, str]] = {}
    for submission in sent:
        for index, keys in enumerate(submission.tasks):
            task = f"{submission.job}_{index}"
            state, reason = known.get(task, ("gone", ""))
            found |= {key: (task, state, reason) for key in keys}
    return found


def _task_states(jobs: set[str], name: str) -> dict[str, tuple[str, str]]:
    """<job>_<task> -> (state, reason), from accounting (sacct) if available, overridden by the controller (squeue).

    Only jobs of that name count: in a plan from another cluster, the job numbers may belong to other jobs here.
    """
    known: dict[str, tuple[str, str]] = {}
    if shutil.which("sacct"):
        listed = subprocess.run(
            [
                "sacct", "-n", "-P", "-X", "--array", f"--name={name}", "-j", ",".join(sorted(jobs)),
                "-o", "JobID,State",
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if listed.returncode == 0:
            for line in listed.stdout.splitlines():
                task, _, state = line.partition("|")
                known[task] = (state.split()[0], "")
    for line in call("squeue", "-h", "-r", "-t", "all", f"--name={name}", "-o", "%F|%K|%T|%r").splitlines():
        job, index, state, reason = line.split("|", 3)
        if job in jobs:
            known[f"{job}_{index}"] = (state, "" if reason == "None" else reason)
    return known


def cancel(plan: Plan, wanted: Sequence[str] = ()) -> list[str]:
    """Cancel the live tasks of a plan, or only those that contain one of the wanted slots; returns these tasks."""
    live: dict[str, None] = {}
    for key, (task, state, _) in slot_states(plan).items():
        if state in LIVE and (not wanted or key in wanted):
            live[task] = None
    if live:
        call("scancel", *live)
    return list(live)


def max_array_size() -> int:
    """Largest number of tasks of one array on this cluster; SLURM's default if it cannot be read."""
    if shutil.which("scontrol") is None:
        return DEFAULT_ARRAY_SIZE
    for line in call("scontrol", "show", "config").splitlines():
        if line.startswith("MaxArraySize"):
            return max(1, int(line.split("=")[1]))
    return DEFAULT_ARRAY_SIZE


def require_slurm() -> None:
    """Raise Unavailable on a machine without SLURM."""
    if shutil.which("sbatch") is None:
        raise Unavailable("sbatch: not found. This machine has no SLURM; `sdsbench sweep` runs the plan here.")


def call(*command: str, folder: Path | None = None) -> str:
    """Run a SLURM command and return its output. Raises SlurmRefused if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SlurmRefused(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def notes(states: Mapping[str, tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """(slot key, SLURM's state as text: `12_3 PENDING (Priority)`)."""
    for key, (task, state, reason) in states.items():
        yield key, f"{task} {state}" + (f" ({reason})" if reason else "")
