"""`sdsbench table NAME`: a table from records alone, in Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdsbench.core.files import write_atomic
from sdsbench.results.frames import DEFAULT

if TYPE_CHECKING:
    from sdsbench.results.tables.build import Built


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench table", description=__doc__)
    parser.add_argument("name", help="lora_sb/table1 ..., sds_lora/math ..., grid (what the records hold), or list")
    add_run_options(parser)
    parser.add_argument("--format", choices=["markdown", "latex", "html", "csv"], default="markdown")
    parser.add_argument("--output", type=Path, help="a folder: all four formats are written there")
    parser.add_argument("--stage", default="trained", help="of a grid: trained, best_epoch, validation or untrained")
    given = parser.parse_args(arguments)

    from sdsbench.results.tables import settings
    from sdsbench.results.tables.definitions import TABLES
    from sdsbench.results.tables.render import FORMATS

    if given.name == "list":
        for table in TABLES.values():
            print(f"{table.name:<30} {table.title}")
        return 0
    if given.name in settings.NAMES:
        texts = {ending: settings.render(given.name, kind) for kind, ending in settings.FORMATS.items()}
    else:
        built = build_table(given)
        texts = {ending: render(built) for ending, render in FORMATS.values()}
    if given.output is None:
        print(texts[settings.FORMATS[given.format]], end="")
        return 0
    for ending, text in texts.items():
        path = given.output / f"{given.name.replace('/', '_')}.{ending}"
        write_atomic(path, text)
        print(path)
    return 0


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Which runs: shared by the verbs that read records."""
    parser.add_argument(
        "--runs", action="append", default=[], metavar="DIR", help=f"folder of runs ({DEFAULT}); repeatable"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this value; keys as in load_runs()",
    )
    parser.add_argument(
        "--scorer",
        action="append",
        default=[],
        metavar="EVALUATION=SCORER",
        help="rank by another scorer, from stored answers",
    )


def build_table(given: argparse.Namespace) -> Built:
    """The table that the options name, filled."""
    from sdsbench.results.tables.build import build
    from sdsbench.results.tables.definitions import get
    from sdsbench.results.tables.definitions.grid import grid
    from sdsbench.results.tables.rescore import rescored
    from sdsbench.results.tables.runs import load

    table = None if given.name == "grid" else get(given.name)
    runs, damaged = load(given.runs or [DEFAULT], given.where)
    for choice in given.scorer:
        runs = rescored(runs, choice)
    return build(table or grid(runs, given.stage), runs, damaged)
