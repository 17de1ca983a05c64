"""`sdsbench submit`: send what is left of a plan to SLURM as a job array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.sweeps.plan import Plan


@click.command("submit")
@options.plan
@options.overrides
@options.config_dirs
def command(plan: str, overrides: tuple[str, ...], config_dirs: tuple[str, ...]) -> None:
    """Send what is left of a PLAN to SLURM: runs that are over, running or in the queue are not sent.

    Overrides are slurm=NAME (`sdsbench ls slurm`), slurm.KEY=VALUE such as slurm.time=04:00:00, and those of
    `sdsbench sweep`.
    """
    from sdsbench.sweeps.plan import find, read
    from sdsbench.sweeps.states import OVER

    send(read(find(plan)), overrides, config_dirs, skip=OVER)


def send(
    plan: Plan, settings: Sequence[str], config_dirs: Sequence[str], skip: Sequence[str] = (), only: Sequence[str] = ()
) -> None:
    """Send the slots whose state is not in `skip` (or is in `only`) and that SLURM does not have already."""
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps import slurm
    from sdsbench.sweeps.slurm_config import configure
    from sdsbench.sweeps.states import States, root_of

    asked = [word for word in settings if word.lstrip("+").startswith(("slurm=", "slurm."))]
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
