"""`sdsbench figures`: the geometry of probed runs (probe.every=N) as PNG, PDF and one HTML page, from records alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.results.frames import DEFAULT


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench figures", description=__doc__)
    parser.add_argument("--runs", nargs="+", default=[DEFAULT], help="folders of runs, or run folders")
    parser.add_argument("--out", type=Path, default=Path("results/figures"))
    given = parser.parse_args(arguments)

    from sdsbench.core.files import write_atomic
    from sdsbench.studies.figures.data import load
    from sdsbench.studies.figures.drawing import save
    from sdsbench.studies.figures.page import page
    from sdsbench.studies.figures.probes import FIGURES
    from sdsbench.studies.figures.summary import summary_csv

    data = load(given.runs)
    pictures = {}
    for name, draw in FIGURES.items():
        pictures[name], document = save(draw(data), given.out / name)
        print(pictures[name], document, sep="\n")
    for name, text in (("summary.csv", summary_csv(data)), ("index.html", page(data, pictures))):
        write_atomic(given.out / name, text)
        print(given.out / name)
    return 0
