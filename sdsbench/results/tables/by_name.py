"""A table by its name, in every format: the one door of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdsbench.results.tables import reference_comparison, settings
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.definitions import get
from sdsbench.results.tables.definitions.grid import grid
from sdsbench.results.tables.render import FORMATS, latex
from sdsbench.results.tables.runs import Run

ENDINGS = {kind: ending for kind, (ending, _) in FORMATS.items()}


def built(name: str, runs: Sequence[Run], damaged: Mapping[str, str], stage: str = "trained") -> Built:
    """The table `name` (a definition's, or grid) filled. Raises ConfigError for an unknown name, Unavailable where a
    grid has no score of the stage.
    """
    return build(grid(runs, stage) if name in ("grid", reference_comparison.NAME) else get(name), runs, dict(damaged))


def texts(
    filled: Built, against: tuple[str, int | None] | None = None, pooled: bool = False, run_ids: bool = False
) -> dict[str, str]:
    """The table by ending (md, tex, html, csv); with `against`, a method and its rank, every method against that one.

    `run_ids` keeps the names of runs in the notes of LaTeX, which a paper's reader has no use for.
    """
    if against is None:
        made = {ending: render(filled) for ending, render in FORMATS.values()}
        return made | ({ENDINGS["latex"]: latex.render(filled, run_ids=True)} if run_ids else {})
    reference, rank = against
    compared = reference_comparison.compare(filled, reference, pooled, rank)
    return {ending: reference_comparison.render(compared, kind) for kind, ending in ENDINGS.items()}


def settings_texts(name: str) -> dict[str, str]:
    """The same of a table of settings (settings.NAMES), which no run fills."""
    return {ending: settings.render(name, kind) for kind, ending in ENDINGS.items()}
