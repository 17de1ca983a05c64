"""`sdsbench clean`: what runs do not need any more; a dry run unless --delete says otherwise."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("clean")
@click.argument("chosen", metavar="[PLAN]...", nargs=-1)
@options.runs
@click.option("--delete", is_flag=True, help="Delete what is listed; without it nothing is touched.")
def command(chosen: tuple[str, ...], runs: tuple[str, ...], delete: bool) -> None:
    """List what can go, of the same runs as `sdsbench disk`: checkpoints of finished runs, what was set aside.

    Records, answers, step logs and trained tensors stay, and so does everything of a run that a process works on.
    """
    from rich.filesize import decimal

    from sdsbench.cli.disk import groups
    from sdsbench.sweeps.disk import removable, remove

    folders = {folder.resolve(): folder for _, _, its in groups(chosen, runs) for folder in its}
    found = [item for folder in folders.values() for item in removable(folder)]
    gone = [item for item in found if not delete or remove(item)]
    for item in found:
        kept = "" if item in gone else "   kept: a process has taken the run"
        print(f"{decimal(item.bytes):>10}  {item.path}   {item.reason}{kept}")
    total = decimal(sum(item.bytes for item in gone))
    if delete:
        print(f"{total} freed")
    else:
        print(f"{total} can go; nothing was deleted: `sdsbench clean --delete` deletes what is listed")
