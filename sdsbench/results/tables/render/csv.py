"""CSV: a line a cell, full precision, with run ids; for spreadsheets and for checking the other formats."""

from __future__ import annotations

from sdsbench.results import escape
from sdsbench.results.tables.build import Built


def render(built: Built) -> str:
    return escape.csv(built.frame)
