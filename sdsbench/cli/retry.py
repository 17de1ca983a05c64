"""`sdsbench retry --failed`: try runs again that failed; their records keep the earlier attempts."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("retry")
@options.plan
@options.overrides
@click.option("--failed", is_flag=True, help="Runs whose record says failed or oom; must be given.")
@click.option("--slurm", is_flag=True, help="Send them to SLURM; default: run them here.")
@options.config_dirs
@options.workers
@options.gpus
@options.deaths
def command(
    plan: str,
    overrides: tuple[str, ...],
    failed: bool,
    slurm: bool,
    config_dirs: tuple[str, ...],
    workers: int | None,
    gpus: str | None,
    deaths: int,
) -> None:
    """Try failed runs of a PLAN again, here or with --slurm.

    Overrides are those of `sdsbench sweep`; with --slurm also slurm=NAME and slurm.KEY=VALUE.
    """
    from sdsbench.cli.submit import send
    from sdsbench.cli.sweep import run_here
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps.plan import find, read
    from sdsbench.sweeps.states import FAILED, States, root_of

    if not failed:
        raise click.UsageError("Say which runs: --failed, those whose record says failed or oom.")
    found = read(find(plan))
    if slurm:
        send(found, overrides, config_dirs, only=FAILED)
        return
    placing = placings.parse(overrides)
    again = [slot.slot.key for slot in States(found, root_of(found, placing)).all() if slot.state in FAILED]
    if not again:
        print("no run of this plan has failed")
        return
    print(f"trying {len(again)} run(s) again")
    run_here(found, placing, workers, gpus, deaths, retry=True)
