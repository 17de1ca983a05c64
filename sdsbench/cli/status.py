"""`sdsbench status`: where a plan stands, from records, locks and SLURM."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("status")
@options.plan
@options.overrides
@options.all_runs
def command(plan: str, overrides: tuple[str, ...], all_runs: bool) -> None:
    """Say where a PLAN stands; changes nothing. output_root=FOLDER where its runs went elsewhere."""
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps import slurm
    from sdsbench.sweeps.overview import print_overview
    from sdsbench.sweeps.plan import find, read

    found = read(find(plan))
    placing = placings.parse(overrides)
    try:
        notes = dict(slurm.notes(slurm.slot_states(found)))
    except slurm.SlurmRefused as error:
        notes = {}
        print(f"SLURM does not answer: {error}")
    print(f"plan {found.folder}")
    print_overview(found, placing, all_runs, notes)
