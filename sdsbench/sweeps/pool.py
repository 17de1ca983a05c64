"""The worker processes of a sweep on this machine: one per GPU, or several on the CPU; those that die are restarted."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdsbench.core.containment import contained, folder_in
from sdsbench.core.processor import usable_cores
from sdsbench.core.reading import require_file
from sdsbench.sweeps.placing import as_settings
from sdsbench.sweeps.plan import Plan

DISK = 74  # exit code of a worker that stopped because of an error of the disk
UNFINISHED = 4  # exit code of a worker some of whose runs are not done: failed, waiting, or owned by other processes
EVENTS = ("take", "end", "leave", "refused", "disk")  # what workers report on their standard output
KNOWN_EXITS = (0, 2, 3, UNFINISHED, DISK, 130)  # exit codes that workers choose; any other code means that one died
QUICK_DEATHS = 5  # a worker that dies this often in a row before it takes a run is not restarted


@dataclass(frozen=True)
class Allocation:
    """The hardware that one worker computes on: a GPU, or a share of the CPU cores."""

    name: str
    threads: int
    cores: tuple[int, ...] = ()
    gpu: str | None = None


def gpu_allocations(gpus: Sequence[str], count: int, threads: int) -> list[Allocation]:
    """Distribute `count` workers over the GPUs in turn: one on each, then a second on each, and so on."""
    share = threads or max(1, usable_cores() // count)
    rounds = [(gpus[number % len(gpus)], number // len(gpus)) for number in range(count)]
    names = [f"gpu{gpu}".replace("/", "-") + (f"-{turn}" if turn else "") for gpu, turn in rounds]
    return [Allocation(name, share, gpu=gpu) for name, (gpu, _) in zip(names, rounds, strict=True)]


def cpu_allocations(count: int, threads: int) -> list[Allocation]:
    """Distribute `count` workers over equal shares of the cores; each worker is pinned to its share.

    A container's quota limits CPU time but not the visible cores, so the number of threads also follows the quota.
    """
    cores = sorted(os.sched_getaffinity(0))
    shares = [tuple(cores[number % len(cores) :: count]) or (cores[number % len(cores)],) for number in range(count)]
    most = max(1, usable_cores() // count)
    counts = [threads or min(len(share), most) for share in shares]
    return [
        Allocation(f"cpu{number}", count, cores=share)
        for number, (count, share) in enumerate(zip(counts, shares, strict=True))
    ]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES; found without loading torch.

    Like CUDA itself, this ignores that list from the first entry that names no GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(number) for number, _ in enumerate(listed.stdout.splitlines())] if listed.returncode == 0 else []


@dataclass
class ActiveWorker:
    """A worker process and the runs that it is working on, several if they train side by side."""

    allocation: Allocation
    process: subprocess.Popen[str]
    runs: dict[str, float] = field(default_factory=dict)  # run id -> time.monotonic() at which the worker took it
    took_any: bool = False  # whether it has taken any run so far


@dataclass(frozen=True)
class EndedRun:
    """A run that a worker has ended."""

    run: str
    status: str
    message: str
    seconds: float  # since the worker took it


class Pool:
    """Starts workers and collects their events; call `step` until it returns False."""

    def __init__(
        self, plan: Plan, allocations: Sequence[Allocation], placing: Mapping[str, Any], options: Sequence[str]
    ) -> None:
        self.plan, self.placing, self.options = plan, dict(placing), list(options)
        self.events: queue.Queue[tuple[ActiveWorker, dict[str, Any] | None]] = queue.Queue()
        self.disk: str | None = None
        self.refused: str | None = None  # why a worker did not start, for example a GPU that does not work
        self.not_begun: dict[str, tuple[int, str]] = {}  # run id -> (exit code, message) of why it could not begin
        self.stopping = False
        self.lost = 0  # number of workers that died without reporting why
        self._quick_deaths: dict[str, int] = {}
        self._slots = None
        if plan.only is not None:  # the file is deleted together with this object
            self._slots = tempfile.NamedTemporaryFile("w", prefix="sdsbench-slots-")  # noqa: SIM115
            self._slots.write(json.dumps(sorted(plan.only)))
            self._slots.flush()
        self._offsets = {allocation.name: number for number, allocation in enumerate(allocations)}
        folder_in(plan.folder, "logs")
        self.active = [self._start(allocation) for allocation in allocations]

    def step(self, seconds: float) -> tuple[bool, list[EndedRun]]:
        """Wait up to `seconds` for events; returns (whether any worker is left, runs that ended)."""
        ended: list[EndedRun] = []
        deadline = time.monotonic() + seconds
        while self.active:
            try:
                active, event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if event is None:
                self._worker_ended(active)
            elif event["event"] == "take":
                active.runs[event["run"]], active.took_any = time.monotonic(), True
            elif event["event"] == "end":
                spent = time.monotonic() - active.runs.pop(event["run"], time.monotonic())
                ended.append(EndedRun(event["run"], event["status"], event["message"], spent))
                if "code" in event:
                    self.not_begun[event["run"]] = event["code"], event["message"]
            elif event["event"] == "leave":
                active.runs.pop(event["run"], None)
            elif event["event"] == "refused":
                self.refused = event["message"]
            elif event["event"] == "disk":
                self.disk = event["message"]
                self.stop(15)
        return bool(self.active), ended

    @property
    def running(self) -> int:
        """Number of runs that workers are working on."""
        return sum(len(active.runs) for active in self.active)

    def stop(self, number: int) -> None:
        """Send a signal to all workers, which then save their runs and end; none is restarted."""
        self.stopping = True
        for active in self.active:
            if active.process.poll() is None:
                active.process.send_signal(number)

    def _start(self, allocation: Allocation) -> ActiveWorker:
        placing = self.placing | {"threads": allocation.threads}
        if allocation.gpu is not None:
            placing["device"] = "cuda"  # with `auto`, a worker whose GPU does not work would train on the CPU
        command = [
            sys.executable, "-m", "sdsbench.sweeps.worker", str(self.plan.folder),
            f"--offset={self._offsets[allocation.name]}", *as_settings(placing), *self.options,
            *([f"--slots={self._slots.name}"] if self._slots else []),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(allocation.threads)}
        if allocation.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = allocation.gpu
        path = contained(self.plan.folder, "logs", f"{os.uname().nodename}-{allocation.name}.log")
        require_file(path)
        with path.open("a") as log:
            process = subprocess.Popen(  # own process group: Ctrl-C on a terminal reaches workers only through `stop`
                command, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace", env=environment,
                process_group=0,
            )  # fmt: skip
        if allocation.cores:
            os.sched_setaffinity(process.pid, allocation.cores)
        active = ActiveWorker(allocation, process)
        threading.Thread(target=self._read_events, args=(active, path), daemon=True).start()
        return active

    def _read_events(self, active: ActiveWorker, log: Path) -> None:
        """Pass on a worker's events until it ends. Lines that native code or a child process printed go to its log."""
        assert active.process.stdout is not None
        for line in active.process.stdout:
            event = _event_in(line)
            if event is not None:
                self.events.put((active, event))
                continue
            with suppress(OSError), log.open("a") as file:  # reading must go on, or the sweep would never end
                file.write(line)
        active.process.wait()
        self.events.put((active, None))

    def _worker_ended(self, active: ActiveWorker) -> None:
        """Remove a worker that has ended; start another in its place if it died without reporting why."""
        self.active.remove(active)
        code = active.process.returncode
        if self.stopping or code in KNOWN_EXITS:
            return
        self.lost += 1
        name = active.allocation.name
        self._quick_deaths[name] = 0 if active.took_any else self._quick_deaths.get(name, 0) + 1
        if self._quick_deaths[name] < QUICK_DEATHS:
            self.active.append(self._start(active.allocation))


def _event_in(line: str) -> dict[str, Any] | None:
    """The event that a line of a worker's standard output holds; None if it holds anything else."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and event.get("event") in EVENTS else None


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without following a link and without waiting for a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def newest_numbers(folder: Path) -> dict[str, Any]:
    """The last training line of a run's metrics.jsonl, read from the end of the file; empty before the first step."""
    try:
        with open(folder / "metrics.jsonl", "rb", opener=_open_without_waiting) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            numbers = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(numbers, dict) and numbers.get("kind") == "train":
            return numbers
    return {}
