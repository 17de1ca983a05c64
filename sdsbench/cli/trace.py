"""`sdsbench trace TABLE ROW COLUMN` or `trace RUN`: the runs, configurations and answers behind a table's cell."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("trace")
@click.argument("name", metavar="TABLE|RUN")
@click.argument("row", required=False)
@click.argument("column", required=False)
@options.runs
@options.where
@options.of_plan
@options.plugins
@options.scorers
@options.stage
def command(
    name: str,
    row: str | None,
    column: str | None,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    of_plan: str | None,
    scorers: tuple[str, ...],
    stage: str,
) -> None:
    """List the runs and files behind a table's cell, or the files of a RUN (its id or a prefix of its id).

    TABLE is a name as for `sdsbench table`, ROW a row's name such as lora_sb_r96 (first column of the CSV), COLUMN a
    column's name such as mistral_7b/gsm8k.
    """
    from sdsbench.cli.table import build_table
    from sdsbench.core.console import print_wrapped
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.results.tables import by_name
    from sdsbench.results.tables.trace import trace, trace_run

    if row is not None and column is not None:
        print_wrapped(trace(build_table(name, runs, where, of_plan, scorers, stage), row, column, name))
        return
    if row is not None or (by_name.is_table(name) and not Path(name).is_dir()):
        key, missing = ("COLUMN", "column") if row is not None else ("ROW", "row and column")
        cells = "grid" if name == "compare" else name
        advice = f"Which {missing} of the table {name}? `sdsbench table {cells} --format csv` lists them."
        raise ConfigError([Problem(key, None, "TABLE ROW COLUMN, or one RUN", advice)])
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.results.tables.loaded_runs import load, problems_of

    found, damaged = load([str(run_folder(name, runs))])
    print_wrapped("\n".join([*map(trace_run, found), *damaged.values(), *problems_of(found).values()]))
