"""Tables by name, in every format; used by all commands that print tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sdsbench.results import escape
from sdsbench.results.tables import reference_comparison
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.definition import FactsTable
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.render import FORMATS, latex, plain
from sdsbench.results.tables.table_registry import TABLES, get

MADE_OF_ALL_RUNS = ("grid", reference_comparison.NAME)
"""Tables whose rows and columns follow from the runs alone."""
ENDINGS = {kind: ending for kind, (ending, _) in FORMATS.items()}


def built(name: str, runs: Sequence[Run], damaged: Mapping[str, str], stage: str = "trained") -> Built:
    """Fill the table `name` (a definition's name, or grid). Raises ConfigError for an unknown name, Unavailable if no
    run has a score of `stage` for the grid.
    """
    return build(grid(runs, stage) if name in MADE_OF_ALL_RUNS else get(name), runs, dict(damaged))


def is_table(name: str) -> bool:
    """Whether there is a table with cells of this name (a definition's name, grid or compare)."""
    return name in MADE_OF_ALL_RUNS or name in TABLES


def texts(
    filled: Built, against: tuple[str, int | None] | None = None, pooled: bool = False, run_ids: bool = False
) -> dict[str, str]:
    """The table as {file ending: text} for md, tex, html, csv; with `against` (reference, rank) the comparison with it.

    `run_ids` keeps run ids in the notes of the LaTeX format, where they are left out by default.
    """
    if against is None:
        made = {ending: render(filled) for ending, render in FORMATS.values()}
        return made | ({ENDINGS["latex"]: latex.render(filled, run_ids=True)} if run_ids else {})
    reference, rank = against
    compared = reference_comparison.compare(filled, reference, pooled, rank)
    return {ending: reference_comparison.render(compared, kind) for kind, ending in ENDINGS.items()}


def facts_texts(table: FactsTable) -> dict[str, str]:
    """{file ending: text} of a table that needs no runs."""
    data = table.frame()
    shown = data.map(lambda value: ("NO", "yes")[bool(value)] if isinstance(value, bool | np.bool_) else value)
    made = {
        ending: plain.render(kind, shown, table.title, table.name, table.columns)
        for kind, ending in ENDINGS.items()
        if kind != "csv"
    }
    return {**made, ENDINGS["csv"]: escape.csv(data)}
