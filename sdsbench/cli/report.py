"""`sdsbench report`: one static HTML folder with leaderboards, figures, claims and a page for every run."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("report")
@options.runs
@options.where
@options.of_plan
@options.plugins
@options.folder("--output", default="results/report", help="Folder to write.")
@options.claims_file
@options.folder("--external", default="results/external", help="Imported results.")
@options.reference
@options.reference_rank
@click.option("--title", default="sdsbench report", show_default=True)
def command(
    runs: tuple[str, ...],
    where: tuple[str, ...],
    of_plan: str | None,
    output: Path,
    claims: Path | None,
    external: Path,
    reference: str,
    reference_rank: int | None,
    title: str,
) -> None:
    """Write one static HTML folder with leaderboards, figures, claims and a page for every run."""
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.results.claims.claim_files import chosen
    from sdsbench.results.claims.verdict import judge
    from sdsbench.results.importers.external import read_all
    from sdsbench.results.report.report_folder import build
    from sdsbench.results.tables.loaded_runs import load, problems_of, require_some

    found, damaged = load(runs, where, of_plan)
    require_some(found, runs)
    verdicts = [judge(claim, found, path.parent) for claim, path in chosen(claims).values()]
    others, unreadable = read_all(external)
    print(build(output, found, {**damaged, **unreadable}, verdicts, others, title, reference, reference_rank))
    report_damaged({**damaged, **unreadable, **problems_of(found)})
