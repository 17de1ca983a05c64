"""How every figure looks and is saved: one colour and mark per method, PNG for pages, PDF for papers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sdsbench.records.files import write_atomic
from sdsbench.tables.names import METHODS

__all__ = ["Figure", "method_style", "new_figure", "save"]

COLOURS = {
    "full_ft": "#000000", "lora": "#d62728", "rslora": "#ff7f0e", "pissa": "#8c564b", "dora": "#e377c2",
    "lora_pro": "#1f77b4", "preconditioned_lora": "#17becf", "lora_xs": "#7f7f7f", "lora_sb": "#bcbd22",
    "sds_lora": "#2ca02c",
}  # fmt: skip
MARKS = dict(zip(COLOURS, "soD^v<>Pp*", strict=True))
OTHER_COLOURS = ("#9467bd", "#98df8a", "#aec7e8", "#ffbb78", "#c49c94", "#dbdb8d")
LINES = ("-", "--", ":", "-.")


def method_style(name: str, variant: int = 0) -> dict[str, Any]:
    """Keywords of a line: the colour and mark of a method; dashes and hollow marks for its variants."""
    return {
        "label": METHODS.get(name, name),
        "color": COLOURS.get(name, OTHER_COLOURS[hash_free_index(name)]),
        "marker": MARKS.get(name, "x"),
        "linestyle": LINES[variant % len(LINES)],
        "linewidth": 1.2,
        "markerfacecolor": "white" if variant else COLOURS.get(name, "white"),
    }


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
