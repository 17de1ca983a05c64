"""`sdsbench sweep`: run a plan on this machine, with one worker per GPU or N workers on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("sweep")
@options.plan
@options.overrides
@options.workers
@options.gpus
@options.deaths
@click.option("--force", is_flag=True, help="Run stale runs again; their records are set aside.")
@click.option("--retry", is_flag=True, hidden=True)
@click.option("--slots", type=click.Path(path_type=Path), hidden=True)
@click.option("--lost-as", default="killed", hidden=True)
def command(
    plan: str,
    overrides: tuple[str, ...],
    workers: int | None,
    gpus: str | None,
    deaths: int,
    force: bool,
    retry: bool,
    slots: Path | None,
    lost_as: str,
) -> None:
    """Run a PLAN on this machine. Finished runs are skipped, interrupted ones resume, failed ones do not stop others.

    Overrides are sweep.group_size and keys that only place runs, such as output_root, device, threads, data.root
    (marked by `sdsbench show`); all other keys are frozen in the plan.
    """
    # --retry, --slots and --lost-as are worker options, used by SLURM tasks with several GPUs, which start a sweep.
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps.local_sweep import run_locally
    from sdsbench.sweeps.plan import named

    found = named(plan)
    if slots is not None:
        found = found.restricted_to(json.loads(slots.read_text()))
    run_locally(found, placings.parse(overrides), workers, gpus, deaths, retry, force, lost_as)
