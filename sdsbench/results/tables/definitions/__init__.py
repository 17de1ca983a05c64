"""All tables by name. A new table is one more entry in one of these files."""

from __future__ import annotations

import difflib

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.results.tables.definition import Table
from sdsbench.results.tables.definitions import lora_sb, sds_lora

TABLES: dict[str, Table] = {table.name: table for table in (*lora_sb.TABLES, *sds_lora.TABLES)}


def get(name: str) -> Table:
    """The table called `name`. Raises ConfigError with the nearest names where there is none."""
    if name in TABLES:
        return TABLES[name]
    near = difflib.get_close_matches(name, TABLES, n=1)
    advice = f"Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        [Problem("table", name, ", ".join([*TABLES, "lora_sb/table8", "lora_sb/table9", "grid"]), advice)]
    )
