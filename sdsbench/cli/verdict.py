"""`sdsbench verdict`: the papers' claims against the records: reproduced, contradicted or undecided."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.core.files import write_atomic
from sdsbench.results.frames import DEFAULT


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench verdict", description=__doc__)
    parser.add_argument("claim", nargs="*", help="ids of claims (all)")
    parser.add_argument(
        "--runs", action="append", default=[], metavar="DIR", help=f"folder of runs ({DEFAULT}); repeatable"
    )
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this value")
    parser.add_argument("--claims", type=Path, help="file of claims (results/claims.yaml)")
    parser.add_argument("--results", type=Path, help="folder of the tables that claims read (that of the claims)")
    parser.add_argument("--format", choices=["markdown", "json"], default="markdown")
    parser.add_argument("--output", type=Path, help="write to this file")
    given = parser.parse_args(arguments)

    import json

    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.results.claims import texts
    from sdsbench.results.claims.claim import default_file, read
    from sdsbench.results.claims.verdict import judge
    from sdsbench.results.tables.runs import load

    path = given.claims or default_file()
    claims = read(path)
    unknown = [name for name in given.claim if name not in {claim.id for claim in claims}]
    if unknown:
        raise ConfigError([Problem("claim", name, ", ".join(claim.id for claim in claims)) for name in unknown])
    runs, _ = load(given.runs or [DEFAULT], given.where)
    chosen = [claim for claim in claims if not given.claim or claim.id in given.claim]
    verdicts = [judge(claim, runs, given.results or path.parent) for claim in chosen]
    text = texts.markdown(verdicts)
    if given.format == "json":
        text = json.dumps([verdict.plain() for verdict in verdicts], indent=1) + "\n"
    if given.output is None:
        print(text, end="")
    else:
        write_atomic(given.output, text)
        print(given.output)
    return 0
