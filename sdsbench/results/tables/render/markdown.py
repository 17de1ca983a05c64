"""Markdown with pipes; ours above the paper's number in each cell."""

from __future__ import annotations

from sdsbench.results.tables.build import Built
from sdsbench.results.tables.render.texts import CellTexts, texts


def render(built: Built) -> str:
    table = built.table
    by_cell = {(cell["row"], cell["column"]): texts(cell) for cell in built.frame.to_dict("records")}
    heads = ["", *(f"{column.group}: {column.title}" if column.group else column.title for column in table.columns)]
    lines = [f"**{table.title}** (`{table.name}`)", "", line(heads), line(["---", *("--:" for _ in table.columns)])]
    for row in table.rows:
        lines.append(line([row.title, *(_cell(by_cell[row.name, column.name]) for column in table.columns)]))
    return "\n".join([*lines, "", *(f"- {_escaped(line)}" for line in built.footer)]) + "\n"


def line(parts: list[str]) -> str:
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def _cell(t: CellTexts) -> str:
    ours = {"best": f"**{t.ours}**", "among_best": f"<u>{t.ours}</u>"}.get(t.mark, t.ours)
    first = " ".join(part for part in (ours, t.spread, f"[{t.note}]" if t.note else "") if part)
    second = f"paper {t.paper}" + (f", {t.difference}" if t.difference else "") if t.paper else ""
    return f"{first}<br>{second}" if second else first


def _escaped(text: str) -> str:
    return text.replace("_", "\\_").replace("*", "\\*")
