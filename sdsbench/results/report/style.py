"""Colours, markers and fonts of all figures: told apart without colour too, and the same bytes on every build."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sdsbench.results.tables.names import METHOD_TITLES

# Okabe and Ito's colours (safe for the common kinds of colour blindness), grey and brown; markers differ as well.
_COLOURS = (
    "#000000",
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#999999",
    "#B8A800",
    "#D55E00",
    "#7B3F00",
)
_MARKERS = "sovD^P<>Xp"
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)), "-", (0, (4, 2)))

_SETTINGS = {
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "sdsbench",
    "pdf.fonttype": 42,
    "savefig.bbox": "tight",
}


@contextmanager
def drawing() -> Iterator[None]:
    """The settings of all figures, for one block."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def look(method: str) -> dict[str, Any]:
    """Colour, marker and line of a method."""
    names = list(METHOD_TITLES)
    i = names.index(method) if method in names else sum(map(ord, method))
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _LINES[i % len(_LINES)],
    }


def save(figure: Figure, folder: Path, name: str) -> str:
    """<name>.svg, .png and .pdf below `folder`; returns the SVG to put into a page."""
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    (folder / f"{name}.svg").write_text(text)
    return text
