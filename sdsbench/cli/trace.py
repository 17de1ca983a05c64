"""`sdsbench trace TABLE ROW COLUMN`: from a cell to its runs, configurations and answers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.cli.table import add_run_options, build_table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench trace", description=__doc__)
    parser.add_argument("name", metavar="TABLE", help="as for sdsbench table")
    parser.add_argument("row", metavar="ROW", help="a row's name, such as lora_sb_r96 (first column of the CSV)")
    parser.add_argument("column", metavar="COLUMN", help="a column's name, such as mistral_7b/gsm8k")
    add_run_options(parser)
    parser.add_argument("--stage", default="trained", help="of a grid: trained, best_epoch, validation or untrained")
    given = parser.parse_args(arguments)

    from sdsbench.results.tables.trace import trace

    print(trace(build_table(given), given.row, given.column))
    return 0
