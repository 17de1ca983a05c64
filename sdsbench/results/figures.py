"""Figures of runs by name: those of probes (studies/probe_figures) and those of plugins.

A figure is registered as text, "module:function", so that importing a plugin is cheap. The function gets the runs that
a command has read and returns a matplotlib figure, made by `new_figure` and with the lines of a `Palette`
(figure_style.py). It raises Unavailable if the runs give nothing to draw, Refused if they must not share a figure.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdsbench.core.errors import ConfigError, Problem, Refused, SdsbenchError
from sdsbench.core.registry import Registry
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import short_message

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdsbench.results.tables.loaded_runs import Run


@dataclass(frozen=True)
class FigureEntry:
    """A registered figure: "module:function" and the caption that pages show above it."""

    function: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A figure on a page; `name` is the stem of its files, `svg` the figure's SVG text."""

    name: str
    caption: str
    svg: str


FIGURES: Registry[FigureEntry] = Registry("figure")


def register_figure(name: str, function: str, caption: str) -> None:
    """Let `function` ("module:function") draw the figure `name`. Raises ValueError if the name is taken."""
    FIGURES.register(name, FigureEntry(function, caption))


def figure_of(name: str) -> FigureEntry:
    """The figure registered as `name`. Raises ConfigError with the nearest name if there is none."""
    try:
        return FIGURES.lookup(name)
    except KeyError:
        names = FIGURES.names()
        raise ConfigError([Problem("figure", name, ", ".join(names), nearest(name, names))]) from None


def draw(name: str, runs: Sequence[Run]) -> Figure:
    """The figure `name` of these runs, drawn in the common style.

    Raises ConfigError for an unknown name, Unavailable or Refused as the figure's function does.
    """
    from sdsbench.results.figure_style import drawing

    function = pkgutil.resolve_name(figure_of(name).function)
    with drawing():
        try:
            return function(runs)
        except SdsbenchError:
            raise
        except Exception as error:  # on damaged measurements, or of a plugin: any type
            raise Refused(f"figure {name} cannot be drawn from these runs ({short_message(error)})") from error


def save_each(
    runs: Sequence[Run], folder: Path, names: Sequence[str] = ()
) -> Iterator[tuple[str, Picture | SdsbenchError]]:
    """Draw the figures `names` (default: every registered one) and write their files into `folder`.

    Yields (name, picture), or the error of a figure that these runs do not give. Raises ConfigError for an unknown name
    before anything is drawn.
    """
    from sdsbench.results.figure_style import save

    for name, entry in {name: figure_of(name) for name in names or FIGURES}.items():
        stem = name.replace("/", "_")
        try:
            yield name, Picture(stem, entry.caption, save(draw(name, runs), folder / stem, entry.caption))
        except SdsbenchError as error:
            yield name, error
