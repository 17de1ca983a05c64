"""The style of all figures: one colour and marker per method, and files without a date, so that bytes are equal."""

from __future__ import annotations

import colorsys
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sdsbench.core.files import write_atomic
from sdsbench.methods.base import METHODS
from sdsbench.results import escape
from sdsbench.results.tables.titles import method_order

# Okabe and Ito's colours (safe for the common kinds of colour blindness), then others; markers differ as well.
_COLOURS = (
    "#000000", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#999999", "#B8A800", "#D55E00", "#7B3F00",
    "#882255", "#6A3D9A", "#7CB518", "#F15BB5", "#C1121F", "#3A5A40",
)  # fmt: skip
_MARKERS = ("o", "s", "v", "D", "^", "P", "<", ">", "X", "p", "*", "h", "d", "8", "H")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)))
_SHADES = (0.0, -0.5, 0.45, -0.25, 0.65, -0.75)  # variants mix the method's colour with black (below 0) or white
_GOLDEN = 0.618034  # golden ratio as hue step, in turns: no hue comes close to an earlier one
DPI = 150
ENDINGS = ("svg", "png", "pdf")

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
    "svg.fonttype": "none",  # real text: searchable, copyable, readable by screen readers
    "pdf.fonttype": 42,
    "savefig.bbox": "tight",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Context manager: apply the common matplotlib settings."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(rows: int, columns: int, title: str, width: float = 3.2) -> tuple[Figure, Any]:
    """A figure and its rows x columns array of axes, without pyplot's global state; `width` of one axes in inches."""
    with drawing():
        figure = Figure(figsize=(max(6.8, width * columns + 1.9), 2.6 * rows + 0.5), layout="constrained")
        figure.suptitle(escape.figure(title), fontsize=11)
        return figure, figure.subplots(rows, columns, squeeze=False)


class Palette:
    """Colours and markers of methods; this package's methods have the same ones in every figure."""

    def __init__(self, methods: Iterable[str]) -> None:
        """`methods`: the names in the records; unregistered ones follow the registered ones, in alphabetical order."""
        known = METHODS.names()
        own = [name for name in known if METHODS.lookup(name)[0].__module__.startswith("sdsbench.methods.")]
        others = sorted(({*known} | {*methods}) - {*own})
        self._places = {name: place for place, name in enumerate([*sorted(own, key=method_order), *others])}

    def style(self, method: str, variant: int = 0) -> dict[str, Any]:
        """matplotlib line keywords of a method; variants (1, 2 ...) get another shade, dashes and hollow markers."""
        place = self._places[method]
        colour = _shaded(_colour(place), _SHADES[variant % len(_SHADES)])
        return {
            "color": colour,
            "marker": _marker(place),
            "linestyle": _LINES[(place + variant) % len(_LINES)],
            "markerfacecolor": "white" if variant else colour,
        }


def _colour(place: int) -> str:
    if place < len(_COLOURS):
        return _COLOURS[place]
    more = place - len(_COLOURS)
    parts = colorsys.hls_to_rgb((0.52 + more * _GOLDEN) % 1.0, (0.34, 0.55, 0.45)[more % 3], (0.85, 0.6)[more % 2])
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _marker(place: int) -> Any:
    """A filled marker of matplotlib; when these are used up, stars with more and more points."""
    return _MARKERS[place] if place < len(_MARKERS) else (4 + place - len(_MARKERS), 1, 0)


def _shaded(colour: str, shade: float) -> str:
    """The colour mixed with white (shade above 0) or black (below 0); |shade| is the share."""
    end = 255 if shade > 0 else 0
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(part + abs(shade) * (end - part)):02x}" for part in parts)


def save(figure: Figure, stem: Path, label: str = "") -> str:
    """Write <stem>.svg, .png and .pdf, equal bytes for equal data; return the SVG text for embedding in a page.

    `label` is the SVG's accessible name (for screen readers). Its background is transparent.
    """
    with drawing():
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            content = io.BytesIO()
            figure.savefig(content, format=ending, dpi=DPI, metadata=metadata)
            write_atomic(stem.with_name(f"{stem.name}.{ending}"), content.getvalue())
    svg = _accessible(text.getvalue()[text.getvalue().index("<svg") :], label or stem.name.replace("_", " "))
    write_atomic(stem.with_name(f"{stem.name}.svg"), svg)
    return svg


def _accessible(svg: str, label: str) -> str:
    """Add accessible names to the figure and its links; remove ids, which several figures on one page would repeat."""
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    role = "group" if "<a xlink:href" in svg else "img"
    named = svg.replace("<svg ", f'<svg role="{role}" aria-label="{escape.html(label)}" ', 1)
    return re.sub(r'<a xlink:href="((?:[^"]*/)?([^"/]*)\.html)"', r'<a xlink:href="\1" aria-label="run \2"', named)
