"""`sdsbench verdict`: judge the papers' claims by the records: reproduced, contradicted or undecided."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("verdict")
@click.argument("chosen", nargs=-1, metavar="[CLAIM]...")
@options.runs
@options.where
@options.of_plan
@options.plugins
@options.claims_file
@options.folder("--results", help="Folder of the tables that claims read; default: the claims file's folder.")
@options.format_of("markdown", "json")
@click.option("--output", type=options.PATH, metavar="FILE", help="Write to this file.")
def command(
    chosen: tuple[str, ...],
    runs: tuple[str, ...],
    where: tuple[str, ...],
    of_plan: str | None,
    claims: Path | None,
    results: Path | None,
    kind: str,
    output: Path | None,
) -> None:
    """Judge the papers' claims by the records: all of them, or those with the ids CLAIM (`sdsbench ls claim`)."""
    import json

    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.core.errors import ConfigError, Problem, Unavailable
    from sdsbench.core.files import write_atomic
    from sdsbench.core.spelling import nearest
    from sdsbench.results.claims import verdict_texts
    from sdsbench.results.claims.claim_files import chosen as claims_of
    from sdsbench.results.claims.verdict import judge
    from sdsbench.results.tables.loaded_runs import load, problems_of
    from sdsbench.results.terminal import print_markdown

    known = claims_of(claims)
    if not known:
        raise Unavailable("no claims are registered. Give a file with --claims (results/claims.yaml of a checkout).")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ConfigError([Problem("claim", name, ", ".join(known), nearest(name, [*known])) for name in unknown])
    found, damaged = load(runs, where, of_plan)
    asked = [entry for name, entry in known.items() if not chosen or name in chosen]
    verdicts = [judge(claim, found, results or path.parent) for claim, path in asked]
    text = verdict_texts.markdown(verdicts)
    if kind == "json":
        text = json.dumps([verdict.plain() for verdict in verdicts], indent=1) + "\n"
    report_damaged({**damaged, **problems_of(found)})
    if output is None and kind == "markdown":
        print_markdown(text)
    elif output is None:
        print(text, end="")
    else:
        write_atomic(output, text)
        print(output)
