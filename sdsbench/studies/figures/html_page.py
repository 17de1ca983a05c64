"""One self-contained HTML page with all figures."""

from __future__ import annotations

from collections.abc import Mapping

from sdsbench.results.escape import html, visible
from sdsbench.studies.figures.data import ProbedRuns

CAPTIONS = {
    "effective_rank": "exp(entropy of the normalised singular values) of the first-order change of W that the method "
    "makes for G, and of G itself. Line: mean over seeds of the median over layers; band: range over seeds.",
    "alignment": "Cosine with the full gradient (1: same direction). Above: first-order change under plain gradient "
    "descent; below: the optimizer's actual step, against G of the probe rows.",
    "anisotropy": "Flat: the method treats all singular directions of its update alike. Decreasing: directions with "
    "large singular values get more of the gradient.",
    "spectra": "Median over layers and seeds, relative to the largest singular value.",
    "factors": "Ratio of the largest to the smallest singular value; undefined while B is 0.",
    "bases": "Mean squared cosine between the subspace that the method projects G on and G's leading subspace.",
    "updates": "Size and effective rank of the change of W since the start.",
    "loss": "The training loss of the same runs.",
    "refresh_jumps": "A refresh recomputes the bases, which changes dW; variants without refreshes have no marks.",
    "by_layer_type": "Mean over probed steps, layers of the type, and seeds.",
    "by_depth": "Mean over probed steps, layers of the block, and seeds.",
}


def page(data: ProbedRuns, pictures: Mapping[str, str]) -> str:
    """HTML with each figure (name -> SVG text), its caption, and a table of the runs."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Geometry of training</title>",
        "<style>body{font:15px/1.5 sans-serif;color-scheme:light dark;max-width:1100px;margin:2em auto;"
        "padding:0 1em}svg{max-width:100%;height:auto}"
        "@media(prefers-color-scheme:dark){body{background:#121212;color:#e6e6e6}"
        "svg{filter:invert(1) hue-rotate(180deg)}}"
        "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:left}"
        "td,th{border-bottom:1px solid #ddd}</style><h1>Geometry of training</h1>",
        "<p>Of several learning rates per line, the one with the lowest mean final training loss is drawn.</p>",
    ]
    for name, svg in pictures.items():
        parts.append(f"<h2 id='{name}'>{html(name.replace('_', ' '))}</h2><p>{html(CAPTIONS[name])}</p>{svg}")
    parts.append(f"<h2>Runs</h2>{_runs(data)}</html>")
    return "\n".join(parts)


def _runs(data: ProbedRuns) -> str:
    columns = ["line", "optimizer", "lr", "seed", "tail_loss", "run_id"]
    table = data.runs[columns].sort_values(["optimizer", "line", "seed"])
    table = table.assign(line=table["line"].map(visible))
    return table.to_html(index=False, border=0, float_format=lambda value: f"{value:.4g}")
