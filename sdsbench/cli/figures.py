"""`sdsbench figures [NAME]`: draw figures from records, such as those of probes; SVG, PNG, PDF, one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("figures")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@options.runs
@options.where
@options.of_plan
@options.plugins
@options.folder("--out", default="results/figures", help="Folder to write.")
def command(
    names: tuple[str, ...], runs: tuple[str, ...], where: tuple[str, ...], of_plan: str | None, out: Path
) -> None:
    """Draw figures from records: those called NAME (`sdsbench ls figure`), or all that these runs give.

    Figures of gradients, factors and updates during training need runs with probes (probe.every=N).
    """
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.core.errors import SdsbenchError, Unavailable
    from sdsbench.core.files import write_atomic
    from sdsbench.results.figure_style import ENDINGS
    from sdsbench.results.figures import save_each
    from sdsbench.results.tables.loaded_runs import load, problems_of
    from sdsbench.studies.probe_figures.html_page import page
    from sdsbench.studies.probe_figures.numbers import summary_csv
    from sdsbench.studies.probe_figures.probed_runs import probed_runs

    found, damaged = load(runs, where, of_plan)
    pictures, refused, of_probes = [], dict[str, SdsbenchError](), False
    for name, drawn in save_each(found, out, names):
        if isinstance(drawn, SdsbenchError):
            refused[name] = drawn
            continue
        pictures.append(drawn)
        of_probes |= is_of_probes(name)
        print(*(out / f"{drawn.name}.{ending}" for ending in ENDINGS), sep="\n")
    if refused and (names or not pictures):
        first = next(iter(refused.values()))
        raise type(first)(f"{', '.join(runs)}: {first}") if isinstance(first, Unavailable) else first
    data = probed_runs(found) if of_probes else None
    files = {"index.html": page(pictures, data)} | ({"summary.csv": summary_csv(data)} if data else {})
    for name, text in files.items():
        write_atomic(out / name, text)
        print(out / name)
    report_damaged({**damaged, **problems_of(found), **{name: str(error) for name, error in refused.items()}})


def is_of_probes(name: str) -> bool:
    """Whether a registered figure is one of studies/probe_figures."""
    from sdsbench.results.figures import figure_of
    from sdsbench.studies import probe_figures

    return figure_of(name).function.startswith(f"{probe_figures.__name__}.")
