"""`sdsbench table NAME`: make a table from records, in Markdown, LaTeX, HTML or CSV."""

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
@options.of_plan
@options.plugins
@options.scorers
@options.format_of("markdown", "latex", "html", "csv")
@options.folder("--output", help="Write all formats to this folder.")
@options.stage
@options.reference
@options.reference_rank
@click.option("--run-ids", is_flag=True, help="Keep run ids in the notes of LaTeX tables.")
@click.option("--pooled", is_flag=True, help="For compare: pool the variance between seeds over a column's methods.")
def command(
    name: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    of_plan: str | None,
    scorers: tuple[str, ...],
    kind: str,
    output: Path | None,
    stage: str,
    reference: str,
    reference_rank: int | None,
    pooled: bool,
    run_ids: bool,
) -> None:
    """Print a table from records alone. NAME is lora_sb/table1 ..., sds_lora/math ... (`sdsbench ls table`), grid:
    whatever the records hold, compare: every method of the grid against --reference, paragraph: what a paper says
    about the setup, or bibtex: the references of methods, data and models."""
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.core.files import write_atomic
    from sdsbench.results import paper_text
    from sdsbench.results.tables import by_name, reference_comparison
    from sdsbench.results.tables.definition import FactsTable
    from sdsbench.results.tables.loaded_runs import load
    from sdsbench.results.tables.table_registry import MADE_OF_RUNS, definition_of
    from sdsbench.results.terminal import print_markdown

    if name in paper_text.NAMES:
        found, damaged = load(runs, where, of_plan)
        report_damaged(damaged)
        texts = paper_text.texts(name, found)
    elif name not in MADE_OF_RUNS and isinstance(facts := definition_of(name), FactsTable):
        texts = by_name.facts_texts(facts)
    else:
        filled = build_table(name, runs, where, of_plan, scorers, stage)
        against = (reference, reference_rank) if name == reference_comparison.NAME else None
        texts = by_name.texts(filled, against, pooled, run_ids)
    if output is None:
        text = paper_text.one_of(name, texts, by_name.ENDINGS[kind])
        if texts.get("md") == text:
            print_markdown(text)
        else:
            print(text, end="")
        return
    for ending, text in texts.items():
        path = output / f"{name.replace('/', '_')}.{ending}"
        write_atomic(path, text)
        print(path)


def build_table(
    name: str, folders: Sequence[str], where: Sequence[str], plan: str | None, scorers: Sequence[str], stage: str
) -> Built:
    """Build the table `name` from the runs of the folders."""
    from sdsbench.results.tables.by_name import MADE_OF_ALL_RUNS, built
    from sdsbench.results.tables.loaded_runs import load, require_some
    from sdsbench.results.tables.rescore import rescored
    from sdsbench.results.tables.table_registry import get

    if name not in MADE_OF_ALL_RUNS:
        get(name)  # an unknown name is refused before records are read
    runs, damaged = load(folders, where, plan)
    if name in MADE_OF_ALL_RUNS:
        require_some(runs, folders)
    for choice in scorers:
        runs = rescored(runs, choice)
    return built(name, runs, damaged, stage)
