"""CSV: a line a cell, full precision, with run ids; for spreadsheets and for checking the other formats."""

from __future__ import annotations

from sdsbench.results.tables.build import Built


def render(built: Built) -> str:
    return built.frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
