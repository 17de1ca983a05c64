"""`sdsbench table NAME`: a table from records alone, in Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.results.tables.build import Built


@click.command("table")
@click.argument("name", metavar="NAME")
@options.runs
@options.where
@options.scorers
@click.option(
    "--format",
    "kind",
    type=click.Choice(["markdown", "latex", "html", "csv"]),
    default="markdown",
    show_default=True,
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="A folder: all four formats are written there."
)
@options.stage
def command(
    name: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    scorers: tuple[str, ...],
    kind: str,
    output: Path | None,
    stage: str,
) -> None:
    """Print a table from records alone. NAME is lora_sb/table1 ..., sds_lora/math ... (`sdsbench ls table`), or grid:
    whatever the records hold."""
    from sdsbench.core.files import write_atomic
    from sdsbench.results.tables import settings
    from sdsbench.results.tables.render import FORMATS

    if name in settings.NAMES:
        texts = {ending: settings.render(name, kind) for kind, ending in settings.FORMATS.items()}
    else:
        built = build_table(name, runs, where, scorers, stage)
        texts = {ending: render(built) for ending, render in FORMATS.values()}
    if output is None:
        print(texts[settings.FORMATS[kind]], end="")
        return
    for ending, text in texts.items():
        path = output / f"{name.replace('/', '_')}.{ending}"
        write_atomic(path, text)
        print(path)


def build_table(name: str, folders: Sequence[str], where: Sequence[str], scorers: Sequence[str], stage: str) -> Built:
    """The table of a name, filled with the runs of the folders."""
    from sdsbench.results.tables.build import build
    from sdsbench.results.tables.definitions import get
    from sdsbench.results.tables.definitions.grid import grid
    from sdsbench.results.tables.rescore import rescored
    from sdsbench.results.tables.runs import load

    table = None if name == "grid" else get(name)
    runs, damaged = load(folders, where)
    for choice in scorers:
        runs = rescored(runs, choice)
    return build(table or grid(runs, stage), runs, damaged)
