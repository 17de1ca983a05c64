"""HTML: one <table> with its footer; `link` makes each number lead somewhere (the report uses it)."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import groupby
from typing import Any

from sdsbench.results.tables.build import Built
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.render.texts import texts


def render(built: Built, link: Callable[[str], str] | None = None) -> str:
    """The table. `link(run_id)` gives the address of a run's record, or without it the ids are a tool tip."""
    table = built.table
    by_cell = {(cell["row"], cell["column"]): cell for cell in built.frame.to_dict("records")}
    lines = [f'<figure class="table" id="{escape(table.name)}">', f"<figcaption>{escape(table.title)}</figcaption>"]
    lines += ['<div class="scroll"><table>', "<thead>", *_heads(table.columns), "</thead>", "<tbody>"]
    for row in table.rows:
        cells = "".join(_cell(by_cell[row.name, column.name], link) for column in table.columns)
        lines.append(f'<tr><th scope="row">{escape(row.title)}</th>{cells}</tr>')
    lines += ["</tbody>", "</table></div>", '<ul class="footer">']
    lines += [f"<li>{escape(line)}</li>" for line in built.footer]
    return "\n".join([*lines, "</ul>", "</figure>"]) + "\n"


def _heads(columns: tuple[Column, ...]) -> list[str]:
    lines = []
    if any(column.group for column in columns):
        groups = [(group, len(list(members))) for group, members in groupby(columns, key=lambda c: c.group)]
        heads = "".join(f'<th scope="colgroup" colspan="{width}">{escape(group)}</th>' for group, width in groups)
        lines.append(f"<tr><td></td>{heads}</tr>")
    titles = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in columns)
    return [*lines, f"<tr><td></td>{titles}</tr>"]


def _cell(cell: dict[str, Any], link: Callable[[str], str] | None) -> str:
    t = texts(cell)
    tag = {"best": "b", "among_best": "u"}.get(t.mark)
    ours = f"<{tag}>{escape(t.ours)}</{tag}>" if tag else escape(t.ours)
    ids = str(cell["runs"]).split()
    title = f' title="{escape(" ".join(ids))}"' if ids else ""
    rest = " ".join(part for part in (t.spread, t.note) if part)
    if rest:
        ours += f' <span class="spread">{escape(rest)}</span>'
    if t.paper:
        difference = f" ({t.difference})" if t.difference else ""
        ours += f'<br><span class="paper">paper {escape(t.paper + difference)}</span>'
    if link and ids:
        dots = " ".join(
            f'<a href="{escape(link(run_id))}" title="{escape(run_id)}">{i + 1}</a>' for i, run_id in enumerate(ids)
        )
        ours += f'<br><span class="runs">runs {dots}</span>'
    return f'<td class="{escape(str(cell["status"]))}"{title}>{ours}</td>'
