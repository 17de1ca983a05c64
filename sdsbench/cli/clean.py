"""`sdsbench clean`: list or (--delete) delete files that runs no longer need."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("clean")
@click.argument("chosen", metavar="[PLAN]...", nargs=-1)
@options.runs
@click.option("--delete", is_flag=True, help="Delete the listed files; without it nothing is changed.")
def command(chosen: tuple[str, ...], runs: tuple[str, ...], delete: bool) -> None:
    """List files that can be deleted: checkpoints of finished runs, and what was set aside (damaged files; records,
    trained tensors and probes of runs that were run again). Without arguments, of the same runs as `sdsbench disk`.

    Records, answers, step logs, probes and trained tensors are kept, and so are all files of a run in progress.
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
