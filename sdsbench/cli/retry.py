"""`sdsbench retry`: retry failed runs of a plan; their records keep the earlier attempts."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("retry")
@options.plan
@options.overrides
@click.option("--run", "chosen", multiple=True, metavar="ID", help="Only this run (as `status` names it); repeatable.")
@click.option("--failed", is_flag=True, help="Also runs that fail deterministically, such as with a loss of NaN.")
@click.option("--slurm/--here", default=None, help="Where to run; default: where the plan ran before.")
@options.config_dirs
@options.workers
@options.gpus
@options.deaths
def command(
    plan: str,
    overrides: tuple[str, ...],
    chosen: tuple[str, ...],
    failed: bool,
    slurm: bool | None,
    config_dirs: tuple[str, ...],
    workers: int | None,
    gpus: str | None,
    deaths: int,
) -> None:
    """Retry runs of a PLAN that may succeed now: killed, out of time or memory, or stopped by a machine's failure.

    Runs whose training failed (the loss was not finite) are retried only with --run or --failed. Overrides are those of
    `sdsbench sweep`; on SLURM also slurm=NAME and slurm.KEY=VALUE.
    """
    from sdsbench.cli.shared.run_folders import completed
    from sdsbench.cli.submit import send
    from sdsbench.core.texts import number_of
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps.local_sweep import run_locally
    from sdsbench.sweeps.plan import named
    from sdsbench.sweeps.slurm import submissions
    from sdsbench.sweeps.slurm_config import split_slurm_words
    from sdsbench.sweeps.states import FAILED, LOST, states_of

    found = named(plan)
    placing = placings.parse(split_slurm_words(overrides)[1])
    slots = list(states_of(found, placing).all())
    if chosen:
        names = {slot.identity or slot.slot.key: slot for slot in slots}
        asked = {completed("--run", text, names, "a run of the plan (see `sdsbench status`)") for text in chosen}
        again = [names[name] for name in asked if names[name].state in {*FAILED, *LOST}]
        if other := [f"{name} is {names[name].state}" for name in asked if names[name] not in again]:
            print(f"not tried again: {', '.join(other)}")
    else:
        again = [slot for slot in slots if slot.worth_retrying or (failed and slot.state in FAILED)]
        left = sum(slot.state in FAILED and slot not in again for slot in slots)
        if left:
            print(f"not tried again: {left} run(s) whose training failed; --failed or --run ID tries them as they are")
    if not again:
        print("no run of this plan is to be tried again")
        return
    print(f"trying {number_of(len(again), 'run')} again")
    part = found.restricted_to(slot.slot.key for slot in again)
    if slurm if slurm is not None else bool(submissions(found)):
        send(part, overrides, config_dirs, retry=True)
    else:
        run_locally(part, placings.parse(overrides), workers, gpus, deaths, retry=True)
