"""Run a plan on this machine: start workers, wait until no run is left to start, and report the outcome."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from sdsbench.core.errors import (
    ConfigError,
    DiskRefuses,
    Interrupted,
    Problem,
    Refused,
    SdsbenchError,
    TrainingFailed,
    Unavailable,
)
from sdsbench.core.files import disk_errors
from sdsbench.core.texts import counted
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import Allocation, Pool, cpu_allocations, gpu_allocations, visible_gpus
from sdsbench.sweeps.states import FAILED, OVER, STALE, states_of
from sdsbench.sweeps.watch import watch
from sdsbench.training.signals import STATUS, acknowledge

_ERRORS: Mapping[int, type[SdsbenchError]] = {error.exit_code: error for error in (Refused, Unavailable)}
"""By exit code, the error that the command ends with where runs could not begin."""


def run_locally(
    plan: Plan,
    placing: Mapping[str, Any],
    workers: int | None,
    gpus: str | None,
    deaths: int,
    retry: bool = False,
    force: bool = False,
    lost_as: str = "killed",
) -> None:
    """Run workers until no run is left to start; `retry` includes failed runs, `force` stale ones.

    `lost_as`: status for attempts whose process died without recording one. Raises the error that determines the exit
    code: DiskRefuses, Interrupted, Unavailable, TrainingFailed or Refused.
    """
    states = states_of(plan, placing)
    if not placing.get("output_root") and not states.root.resolve().is_relative_to(Path.cwd()):
        print(f"the plan writes its runs to {states.root}; output_root=FOLDER decides otherwise")
    allocations = _allocations(plan, placing, workers, gpus)
    with disk_errors(plan.folder.parent):
        options = [f"--deaths={deaths}", f"--lost-as={lost_as}", *["--retry"] * retry, *["--force"] * force]
        pool = Pool(plan, allocations, placing, options)
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if not received and not sys.stdout.isatty():  # on a terminal, the live table shows it
            acknowledge(number)
        received.append(number)
        pool.stop(number)

    # Python allows signal handlers only in the main thread, but a notebook may call this from another thread.
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in STATUS} if main else {}
    try:
        watch(pool, plan, states, (FAILED if retry else ()) + ((STALE,) if force else ()))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    states = states_of(plan, placing)
    counts = states.counts()
    print(counted(counts))
    _raise_outcome(plan, pool, counts, received)


def _raise_outcome(plan: Plan, pool: Pool, counts: Mapping[str, int], received: list[int]) -> None:
    """Raise what the exit code needs, where something is left, failed or stale, or a signal stopped the workers."""
    if pool.disk:
        raise DiskRefuses(pool.disk.removeprefix("sdsbench: "))
    if received:
        raise Interrupted(f"stopped by {signal.Signals(received[0]).name}; `sdsbench sweep {plan.folder}` continues")
    left = sum(number for state, number in counts.items() if state not in OVER)
    if left and pool.refused:
        raise Unavailable(pool.refused)
    failed = sum(counts.get(state, 0) for state in (*FAILED, "impossible"))
    if failed:
        raise TrainingFailed(
            f"{failed} run(s) failed: `sdsbench status {plan.folder}` says why, `sdsbench retry {plan.folder}` tries "
            "again what may end otherwise"
        )
    if counts.get(STALE):
        raise Refused(
            f"{counts[STALE]} run(s) are stale, made with code or base weights that have changed: `sdsbench status "
            f"{plan.folder}` names the parts, `sdsbench sweep {plan.folder} --force` runs them again"
        )
    if left and pool.not_begun:
        code, reason = next(iter(pool.not_begun.values()))
        error = _ERRORS.get(code, TrainingFailed)
        raise error(f"{left} run(s) are not over, of which {len(pool.not_begun)} could not begin. The first: {reason}")
    if left:
        raise TrainingFailed(
            f"{left} run(s) are not over: other processes have them, or workers died (logs: {plan.folder}/logs)"
        )


def _allocations(plan: Plan, placing: Mapping[str, Any], workers: int | None, chosen: str | None) -> list[Allocation]:
    """The workers' devices: one worker for each GPU unless `workers` is given, or `workers` workers on the CPU."""
    device = placing.get("device", plan.placing["device"])
    threads = int(str(placing.get("threads", plan.placing["threads"])))
    if workers is not None and workers < 1:
        raise ConfigError([Problem("--workers", workers, "a whole number from 1")])
    visible = visible_gpus()
    asked = [name.strip() for name in chosen.split(",")] if chosen is not None else visible
    if unknown := [name for name in asked if name not in visible]:
        accepted = ", ".join(visible) or "none, since no GPU can be used here"
        raise ConfigError([Problem("--gpus", ",".join(unknown), accepted, "CUDA_VISIBLE_DEVICES names the GPUs.")])
    gpus = [] if device == "cpu" else list(dict.fromkeys(asked))
    if device == "cuda" and not gpus:
        raise ConfigError([Problem("device", device, "cpu or auto on this machine", "No GPU was found.")])
    return gpu_allocations(gpus, workers or len(gpus), threads) if gpus else cpu_allocations(workers or 1, threads)
