"""How every figure looks and is saved: one colour and mark per method, PNG for pages, PDF for papers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sdsbench.core.files import write_atomic
from sdsbench.results.tables.names import METHOD_TITLES

__all__ = ["Figure", "method_style", "new_figure", "save"]

COLOURS = {
    "full_ft": "#000000", "lora": "#d62728", "rslora": "#ff7f0e", "pissa": "#8c564b", "dora": "#e377c2",
    "lora_pro": "#1f77b4", "preconditioned_lora": "#17becf", "lora_xs": "#7f7f7f", "lora_sb": "#bcbd22",
    "sds_lora": "#2ca02c",
}  # fmt: skip
MARKS = dict(zip(COLOURS, "soD^v<>Pp*", strict=True))
OTHER_COLOURS = ("#9467bd", "#98df8a", "#aec7e8", "#ffbb78", "#c49c94", "#dbdb8d")
LINES = ("-", "--", ":", "-.")
VARIANT_MARKS = "sDv^oP"
SHADES = (0.0, -0.55, 0.45, -0.3, 0.65, -0.75)  # of a method's colour for its variants: to black, to white


def method_style(name: str, variant: int = 0) -> dict[str, Any]:
    """Keywords of a line: the colour and mark of a method; shades, dashes and hollow marks of its own per variant."""
    colour = _shaded(COLOURS.get(name, OTHER_COLOURS[hash_free_index(name)]), SHADES[variant % len(SHADES)])
    return {
        "label": METHOD_TITLES.get(name, name),
        "color": colour,
        "marker": VARIANT_MARKS[(variant - 1) % len(VARIANT_MARKS)] if variant else MARKS.get(name, "x"),
        "linestyle": LINES[variant % len(LINES)],
        "linewidth": 1.2,
        "markerfacecolor": "white" if variant else colour,
    }


def _shaded(colour: str, shade: float) -> str:
    """The colour mixed with white (shade above 0) or black (below)."""
    end = 255 if shade > 0 else 0
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(part + abs(shade) * (end - part)):02x}" for part in parts)


def hash_free_index(name: str) -> int:
    """The same colour for the same unknown name in every process."""
    return sum(name.encode()) % len(OTHER_COLOURS)


def new_figure(rows: int, columns: int, title: str, width: float = 3.2, height: float = 2.6) -> tuple[Figure, Any]:
    """A figure of rows x columns axes (a two-dimensional array) without any global state."""
    figure = Figure(figsize=(max(6.8, width * columns + 1.9), height * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.tick_params(labelsize=8)
    return figure, axes


def save(figure: Figure, stem: Path) -> list[Path]:
    """<stem>.png and <stem>.pdf, without a date inside: equal data gives equal files."""
    written = []
    for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=100, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{ending}")
        write_atomic(path, buffer.getvalue())
        written.append(path)
    return written
