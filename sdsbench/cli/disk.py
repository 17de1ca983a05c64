"""`sdsbench disk`: the disk space of plans and runs, and how much of it `sdsbench clean` would free."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from sdsbench.cli.shared import options


@click.command("disk")
@click.argument("chosen", metavar="[PLAN]...", nargs=-1)
@options.runs
def command(chosen: tuple[str, ...], runs: tuple[str, ...]) -> None:
    """Print the disk space of plans and their runs, and how much of it `sdsbench clean` would free.

    Without a PLAN: all of results/plans, and the runs in --runs that belong to no plan. With a PLAN and --runs: its
    runs there, not those in its output_root. A run of several plans is counted in each of them.
    """
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from sdsbench.core.console import rich_console, terminal_text
    from sdsbench.sweeps.disk import bytes_of, removable

    table = Table(box=None, pad_edge=False)
    for column in ("plan", "runs", "on disk", "can go"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    for name, plan_folder, folders in groups(chosen, runs):
        size = sum(map(bytes_of, folders)) + (bytes_of(plan_folder) if plan_folder else 0)
        free = sum(found.bytes for folder in folders for found in removable(folder))
        table.add_row(Text(terminal_text(name)), str(len(folders)), decimal(size), decimal(free))
    rich_console().print(table)


def groups(chosen: tuple[str, ...], runs: tuple[str, ...]) -> list[tuple[str, Path | None, list[Path]]]:
    """(name, folder, folders of the runs) of plans; without chosen ones the runs of no plan come last.

    Of all plans those that cannot be read are told and left out. Where --runs is given, runs of chosen plans are
    looked for there.
    """
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.core.errors import SdsbenchError
    from sdsbench.sweeps.disk import run_folders
    from sdsbench.sweeps.plan import PLANS, all_plans, find, read

    elsewhere = bool(chosen) and _given("runs")
    folders = [find(name) for name in chosen] or all_plans()
    # a folder of runs holds them, and a run's folder is one
    every = sorted({path.parent for root in map(Path, runs) for path in (*root.glob("lock"), *root.glob("*/lock"))})
    names = list(chosen) or [folder.relative_to(PLANS).as_posix() for folder in folders]
    found: list[tuple[str, Path | None, list[Path]]] = []
    damaged: dict[str, str] = {}
    for name, folder in zip(names, folders, strict=True):
        try:
            plan = read(folder)
            there = [run for run in every if run.absolute().name in plan.manifest.runs]  # --runs may be `.`
            found.append((name, folder, there if elsewhere else run_folders(plan, {})))
        except SdsbenchError as error:
            if chosen:
                raise
            damaged[name] = f"plan {name}: {error}"
    report_damaged(damaged)
    if not chosen:
        planned = {run.resolve() for _, _, its in found for run in its}
        found.append(("(no plan)", None, [run for run in every if run.resolve() not in planned]))
    return found


def _given(option: str) -> bool:
    """Whether the user gave this option of the running command."""
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT
