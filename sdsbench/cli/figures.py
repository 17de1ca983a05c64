"""`sdsbench figures`: the geometry of probed runs (probe.every=N) as PNG, PDF and one HTML page, from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("figures")
@options.runs
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("results/figures"),
    show_default=True,
    help="Folder to write.",
)
def command(runs: tuple[str, ...], out: Path) -> None:
    """Draw the geometry of runs that were probed (probe.every=N), from records alone."""
    from sdsbench.core.files import write_atomic
    from sdsbench.results.figure_style import ENDINGS, save
    from sdsbench.studies.figures.data import load
    from sdsbench.studies.figures.page import CAPTIONS, page
    from sdsbench.studies.figures.probes import FIGURES
    from sdsbench.studies.figures.summary import summary_csv

    data = load(runs)
    pictures = {}
    for name, draw in FIGURES.items():
        pictures[name] = save(draw(data), out / name, CAPTIONS[name])
        print(*(out / f"{name}.{ending}" for ending in ENDINGS), sep="\n")
    for name, text in (("summary.csv", summary_csv(data)), ("index.html", page(data, pictures))):
        write_atomic(out / name, text)
        print(out / name)
