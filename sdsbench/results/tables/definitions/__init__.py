"""All tables by name. A new table is an entry in one of these files; plugins call `register`."""

from __future__ import annotations

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.registry import Registry
from sdsbench.core.spelling import nearest
from sdsbench.results.tables.definition import Table
from sdsbench.results.tables.definitions import dora, lora_pro, lora_sb, lr_matters, sds_lora

TABLES: Registry[Table] = Registry("table")
MADE_OF_RUNS = ("lora_sb/table8", "lora_sb/table9", "grid", "compare", "paragraph", "bibtex")
"""Names of tables whose rows or columns follow from the runs."""


def register(table: Table) -> None:
    """Register a table under its name. Raises ValueError if the name is taken."""
    TABLES.register(table.name, table)


for _table in (*lora_sb.TABLES, *sds_lora.TABLES, *dora.TABLES, *lora_pro.TABLES, *lr_matters.TABLES):
    register(_table)


def get(name: str) -> Table:
    """The table called `name`. Raises ConfigError with the nearest name if there is none."""
    try:
        return TABLES.lookup(name)
    except KeyError:
        names = sorted({*TABLES, *MADE_OF_RUNS})
        raise ConfigError([Problem("table", name, ", ".join(names), nearest(name, names))]) from None
