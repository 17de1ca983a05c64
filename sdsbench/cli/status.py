"""`sdsbench status [PLAN]`: the state of a plan's runs, from records, locks and SLURM; without a name, all plans."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("status")
@click.argument("plan", metavar="[PLAN]", required=False)
@options.overrides
@options.all_runs
def command(plan: str | None, overrides: tuple[str, ...], all_runs: bool) -> None:
    """Print the state of a PLAN's runs, or list all plans; changes nothing.

    Give output_root=FOLDER if the runs were written to another folder.
    """
    from sdsbench.core.console import print_wrapped
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps import slurm
    from sdsbench.sweeps.overview import print_overview
    from sdsbench.sweeps.plan import named

    if plan is None:
        _list_plans()
        return
    found = named(plan)
    placing = placings.parse(overrides)
    try:
        notes = dict(slurm.notes(slurm.slot_states(found)))
    except slurm.SlurmRefused as error:
        notes = {}
        print_wrapped(f"SLURM does not answer: {error}")
    print_wrapped(f"plan {found.folder}")
    print_overview(found, placing, all_runs, notes)


def _list_plans() -> None:
    """Print one line per plan of results/plans: states of its runs, and its description."""
    from sdsbench.core.console import print_wrapped
    from sdsbench.core.errors import SdsbenchError
    from sdsbench.core.texts import counted
    from sdsbench.sweeps.plan import PLANS, all_plans, read
    from sdsbench.sweeps.states import states_of

    folders = all_plans()
    if not folders:
        print_wrapped(f"no plan in {PLANS}; `sdsbench plan` makes one")
    for folder in folders:
        name = folder.relative_to(PLANS).as_posix()
        try:
            plan = read(folder)
            counts = states_of(plan, {}).counts()
        except SdsbenchError as error:
            print_wrapped(f"{name}: {error}")
            continue
        text = counted(counts)
        print_wrapped(f"{name}: {text}" + (f"; {plan.manifest.description}" if plan.manifest.description else ""))
