"""`sdsbench submit`: send what is left of a plan to SLURM as a job array."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.sweeps import placing as placings
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan, find, read
from sdsbench.sweeps.slurm_config import configure
from sdsbench.sweeps.states import OVER, States, root_of


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench submit",
        description="Sends what is left of a plan to SLURM: runs that are over, running or in the queue are not sent.",
    )
    parser.add_argument("plan", help="folder or name of a plan")
    parser.add_argument("settings", nargs="*", help="slurm=gpu slurm.time=04:00:00 ... output_root=... threads=1")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    given = parser.parse_intermixed_args(arguments)
    plan = read(find(given.plan))
    send(plan, given.settings, given.config_dir, skip=OVER)
    return 0


def send(
    plan: Plan, settings: Sequence[str], config_dirs: Sequence[str], skip: Sequence[str] = (), only: Sequence[str] = ()
) -> None:
    """Send the slots whose state is not in `skip` (or is in `only`) and that SLURM does not have already."""
    asked = [word for word in settings if word.startswith(("slurm=", "slurm."))]
    placing = placings.parse([word for word in settings if word not in asked])
    config = configure(asked, config_dirs)
    in_queue = {key for key, (_, state, _) in slurm.slot_states(plan).items() if state in slurm.LIVE}
    states = States(plan, root_of(plan, placing))
    wanted = [
        slot.slot.key
        for slot in states.all()
        if slot.slot.key not in in_queue and slot.state != "running" and slot.state not in skip
        and (not only or slot.state in only)
    ]  # fmt: skip
    if not wanted:
        print("nothing to send: every run is over, running, or in the queue")
        return
    jobs = slurm.submit(plan, wanted, config, placing, retry=bool(only))
    tasks = -(-len(wanted) // config.runs_per_task)
    print(f"sent {len(wanted)} run(s) in {tasks} task(s) as job {', '.join(jobs)}; `sdsbench status {plan.folder}`")
