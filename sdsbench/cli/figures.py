"""`sdsbench figures`: draw gradients and updates of runs with probes (probe.every=N); SVG, PNG, PDF, one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("figures")
@options.runs
@options.folder("--out", default="results/figures", help="Folder to write.")
def command(runs: tuple[str, ...], out: Path) -> None:
    """Draw figures of gradients, factors and updates during training, from runs with probes (probe.every=N)."""
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.core.files import write_atomic
    from sdsbench.results.figure_style import ENDINGS, save
    from sdsbench.studies.figures.data import load
    from sdsbench.studies.figures.html_page import CAPTIONS, page
    from sdsbench.studies.figures.numbers import summary_csv
    from sdsbench.studies.figures.probes import FIGURES

    data = load(runs)
    report_damaged(data.damaged)
    pictures = {}
    for name, draw in FIGURES.items():
        pictures[name] = save(draw(data), out / name, CAPTIONS[name])
        print(*(out / f"{name}.{ending}" for ending in ENDINGS), sep="\n")
    for name, text in (("summary.csv", summary_csv(data)), ("index.html", page(data, pictures))):
        write_atomic(out / name, text)
        print(out / name)
