"""Markdown pipe tables; each cell has our number above the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from sdsbench.results.escape import markdown as escaped
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.render.cell_texts import CellTexts, texts


def render(built: Built) -> str:
    table = built.table
    by_cell = {(cell["row"], cell["column"]): texts(cell) for cell in built.frame.to_dict("records")}
    heads = [column.heading for column in table.columns]
    lines = [heading(table.title, table.name), "", line(["", *map(escaped, heads)])]
    lines.append(line(["---", *("--:" for _ in table.columns)]))
    for row in table.rows:
        cells = (_cell(by_cell[row.name, column.name]) for column in table.columns)
        lines.append(line([escaped(row.title), *cells]))
    return "\n".join([*lines, "", *(f"- {escaped(text)}" for text in built.footer)]) + "\n"


def heading(title: str, name: str) -> str:
    """A table's title with its command-line name."""
    return f"**{escaped(title)}** (`{name}`)"


def line(parts: Sequence[str]) -> str:
    """A row of a pipe table; `parts` are already escaped Markdown."""
    return f"| {' | '.join(parts)} |"


def _cell(t: CellTexts) -> str:
    ours = {"best": f"**{t.ours}**", "among_best": f"<u>{t.ours}</u>"}.get(t.mark, t.ours)
    first = " ".join(part for part in (ours, t.spread, f"[{escaped(t.note)}]" if t.note else "") if part)
    second = f"paper {t.paper}" + (f", {t.difference}" if t.difference else "") if t.paper else ""
    return f"{first}<br>{second}" if second else first
