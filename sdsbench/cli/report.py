"""`sdsbench report`: one static HTML folder with leaderboards, figures, claims and a page for every run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.results.frames import DEFAULT


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench report", description=__doc__)
    parser.add_argument(
        "--runs", action="append", default=[], metavar="DIR", help=f"folder of runs ({DEFAULT}); repeatable"
    )
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this value")
    parser.add_argument("--output", type=Path, default=Path("results/report"), help="folder to write (results/report)")
    parser.add_argument("--claims", type=Path, help="file of claims (results/claims.yaml)")
    parser.add_argument(
        "--external", type=Path, default=Path("results/external"), help="imported results (results/external)"
    )
    parser.add_argument("--title", default="sdsbench report")
    given = parser.parse_args(arguments)

    from sdsbench.results.claims.claim import default_file, read
    from sdsbench.results.claims.verdict import judge
    from sdsbench.results.importers.external import read_all
    from sdsbench.results.report.build import build
    from sdsbench.results.tables.runs import load

    runs, damaged = load(given.runs or [DEFAULT], given.where)
    path = given.claims or default_file()
    claims = read(path) if given.claims or path.is_file() else []
    verdicts = [judge(claim, runs, path.parent) for claim in claims]
    print(build(given.output, runs, damaged, verdicts, read_all(given.external), given.title))
    return 0
