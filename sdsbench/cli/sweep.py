"""`sdsbench sweep`: run a plan on this machine, one worker a GPU or N on the CPU."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from types import FrameType

from sdsbench.core.errors import ConfigError, DiskRefuses, Interrupted, Problem, Refused, TrainingFailed
from sdsbench.core.files import disk_errors
from sdsbench.sweeps import placing as placings
from sdsbench.sweeps.plan import Plan, find, read
from sdsbench.sweeps.pool import Pool, Seat, cpu_seats, gpu_seats, gpus_here
from sdsbench.sweeps.states import FAILED, OVER, STALE, States, root_of
from sdsbench.sweeps.watch import watch


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench sweep",
        description="Runs a plan here. Finished runs are skipped, interrupted ones go on, a failing run stops nothing.",
    )
    parser.add_argument("plan", help="folder or name of a plan")
    parser.add_argument("placing", nargs="*", help=f"KEY=VALUE for {', '.join(placings.KEYS)}")
    parser.add_argument("--workers", type=int, help="CPU workers; default: 1, or one a GPU where there are GPUs")
    parser.add_argument("--gpus", help="indices of the GPUs to use, by commas; default: all")
    parser.add_argument("--force", action="store_true", help="run stale runs again; their records are set aside")
    parser.add_argument("--deaths", type=int, default=5, help="give a run up whose process died so often at one step")
    given = parser.parse_intermixed_args(arguments)
    return run_here(read(find(given.plan)), given, ["--force"] if given.force else [])


def run_here(plan: Plan, given: argparse.Namespace, options: Sequence[str]) -> int:
    """Drive workers until nothing is left to take; raises what the exit code needs."""
    placing = placings.parse(given.placing)
    states = States(plan, root_of(plan, placing))
    with disk_errors(plan.folder.parent):
        pool = Pool(plan, _seats(plan, placing, given), placing, [f"--deaths={given.deaths}", *options])
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        pool.stop(number)

    before = {number: signal.signal(number, note) for number in _STOPPING}
    try:
        watch(pool, plan, states, _taken_again(options))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    states = States(plan, root_of(plan, placing))
    counts = states.counts()
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    if pool.disk:
        raise DiskRefuses(pool.disk.removeprefix("sdsbench: "))
    if received:
        raise Interrupted(f"stopped by {signal.Signals(received[0]).name}; `sdsbench sweep {plan.folder}` continues")
    failed = sum(counts.get(state, 0) for state in (*FAILED, "impossible"))
    if failed:
        raise TrainingFailed(
            f"{failed} run(s) failed: `sdsbench status {plan.folder}` says why, `retry --failed` tries again"
        )
    if counts.get(STALE):
        raise Refused(
            f"{counts[STALE]} run(s) are stale, made with code or base weights that have changed: `sdsbench status "
            f"{plan.folder}` names the parts, `sdsbench sweep {plan.folder} --force` runs them again"
        )
    left = sum(number for state, number in counts.items() if state not in OVER)
    if left:
        raise TrainingFailed(
            f"{left} run(s) are not over: other processes have them, or workers died (logs: {plan.folder}/logs)"
        )
    return 0


def _taken_again(options: Sequence[str]) -> tuple[str, ...]:
    """States that count as over elsewhere and that these workers take."""
    return (FAILED if "--retry" in options else ()) + ((STALE,) if "--force" in options else ())


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def _seats(plan: Plan, placing: dict[str, object], given: argparse.Namespace) -> list[Seat]:
    device = placing.get("device", plan.manifest.placing["device"])
    threads = int(str(placing.get("threads", plan.manifest.placing["threads"])))
    if given.workers is not None and given.workers < 1:
        raise ConfigError([Problem("--workers", given.workers, "a whole number from 1")])
    gpus = [] if device == "cpu" else given.gpus.split(",") if given.gpus else gpus_here()
    if device == "cuda" and not gpus:
        raise ConfigError([Problem("device", device, "cpu or auto on this machine", "No GPU was found.")])
    return gpu_seats(gpus, threads) if gpus else cpu_seats(given.workers or 1, threads)
