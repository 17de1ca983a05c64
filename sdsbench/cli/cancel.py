"""`sdsbench cancel`: take a plan's tasks back from SLURM; records and checkpoints stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import find, read


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench cancel",
        description="Cancels a plan's SLURM tasks. Runs in them save their state; `sdsbench submit` sends them again.",
    )
    parser.add_argument("plan", help="folder or name of a plan")
    parser.add_argument("--run", action="append", default=[], help="only the task of this run (as `status` names it)")
    given = parser.parse_intermixed_args(arguments)
    plan = read(find(given.plan))
    known = {slot.key for slot in plan.slots()}
    problems = [
        Problem("--run", run, "a run of the plan (see `sdsbench status`)") for run in given.run if run not in known
    ]
    if problems:
        raise ConfigError(problems)
    cancelled = slurm.cancel(plan, given.run)
    print(
        f"cancelled {len(cancelled)} task(s): {', '.join(cancelled)}"
        if cancelled
        else "no task of this plan is in SLURM"
    )
    return 0
