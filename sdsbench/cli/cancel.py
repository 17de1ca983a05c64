"""`sdsbench cancel`: cancel a plan's SLURM tasks; records and checkpoints are kept."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("cancel")
@options.plan
@click.option(
    "--run", "chosen", multiple=True, metavar="ID", help="Only the task of this run (as `status` names it); repeatable."
)
def command(plan: str, chosen: tuple[str, ...]) -> None:
    """Cancel a plan's SLURM tasks. Runs in them save their state; `sdsbench submit` sends them again."""
    from sdsbench.cli.shared.run_folders import completed
    from sdsbench.sweeps import slurm
    from sdsbench.sweeps.plan import named

    found = named(plan)
    # SLURM's tasks hold slots; `status` names the slot of a tuned cell by its run once tuning has chosen one.
    keys = {slot.key: [slot.key] for slot in found.slots()}
    for name, cell in found.manifest.cells.items():
        for seed, row in cell.final.items():
            for identity in row:
                keys.setdefault(identity, []).append(f"{name}:{seed}")
    asked = [completed("--run", text, keys, "a run of the plan (see `sdsbench status`)") for text in chosen]
    cancelled = slurm.cancel(found, [key for identity in asked for key in keys[identity]])
    print(
        f"cancelled {len(cancelled)} task(s): {', '.join(cancelled)}"
        if cancelled
        else "no task of this plan is in SLURM"
    )
