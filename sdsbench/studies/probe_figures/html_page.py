"""One self-contained HTML page with all figures of `sdsbench figures`."""

from __future__ import annotations

from collections.abc import Sequence

from sdsbench.results.escape import html, visible
from sdsbench.results.figures import Picture
from sdsbench.studies.probe_figures.probed_runs import ProbedRuns


def page(pictures: Sequence[Picture], data: ProbedRuns | None = None) -> str:
    """HTML with each figure and its caption; `data`: the probed runs among those drawn, which a table then lists."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Figures</title>",
        "<style>body{font:15px/1.5 sans-serif;color-scheme:light dark;max-width:1100px;margin:2em auto;"
        "padding:0 1em}svg{max-width:100%;height:auto}"
        "@media(prefers-color-scheme:dark){body{background:#121212;color:#e6e6e6}"
        "svg{filter:invert(1) hue-rotate(180deg)}}"
        "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:left}"
        "td,th{border-bottom:1px solid #ddd}</style><h1>Figures</h1>",
    ]
    for picture in pictures:
        title = html(picture.name.replace("_", " "))
        parts.append(f"<h2 id='{html(picture.name)}'>{title}</h2><p>{html(picture.caption)}</p>{picture.svg}")
    if data is not None:
        parts.append(
            "<h2>Runs with probes</h2><p>Of several learning rates per line, the one with the lowest mean final "
            f"training loss is drawn.</p>{_runs(data)}"
        )
    return "\n".join([*parts, "</html>"])


def _runs(data: ProbedRuns) -> str:
    columns = ["line", "optimizer", "lr", "seed", "tail_loss", "run_id"]
    table = data.runs[columns].sort_values(["optimizer", "line", "seed"])
    table = table.assign(line=table["line"].map(visible))
    return table.to_html(index=False, border=0, float_format=lambda value: f"{value:.4g}")
