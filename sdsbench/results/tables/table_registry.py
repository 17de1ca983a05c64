"""All tables that have a definition, by name: those of the papers (studies/paper_tables) and those of plugins.

A table is registered as text, "module:function", so that importing a plugin is cheap. The function takes no arguments
and returns the definition: a Table, or a FactsTable, which needs no runs.
"""

from __future__ import annotations

import pkgutil

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.registry import Registry
from sdsbench.core.spelling import nearest
from sdsbench.results.tables.definition import FactsTable, Table

TABLES: Registry[str] = Registry("table")
MADE_OF_RUNS = {
    "grid": "whatever the records hold",
    "compare": "every method against one",
    "paragraph": "what a paper says about the setup",
    "bibtex": "references of methods, data and models",
}
"""Names and descriptions of tables whose rows or columns follow from the runs; they have no definition."""


def register_table(name: str, function: str) -> None:
    """Let `function` ("module:function") define the table `name`. Raises ValueError if the name is taken."""
    if name in MADE_OF_RUNS:
        raise ValueError(f"table {name!r} is one of {', '.join(MADE_OF_RUNS)}, which have no definition")
    TABLES.register(name, function)


def definition_of(name: str) -> Table | FactsTable:
    """The definition of the table `name`. Raises ConfigError with the nearest name if there is none."""
    try:
        function = TABLES.lookup(name)
    except KeyError:
        names = sorted([*TABLES, *MADE_OF_RUNS])
        raise ConfigError([Problem("table", name, ", ".join(names), nearest(name, names))]) from None
    return pkgutil.resolve_name(function)()


def get(name: str) -> Table:
    """The table `name`, which is filled from runs. Raises ConfigError if there is none, or if it needs no runs."""
    found = definition_of(name)
    if isinstance(found, Table):
        return found
    raise ConfigError([Problem("table", name, "a table that is filled from runs", "This one needs none.")])
