"""HTML: one <table> with its footer; the report adds links to the runs of each row (`link`)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from sdsbench.results.escape import html as escape
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.render.cell_texts import texts

MANY = 12
"""Up to this number, links to runs are visible in the row; more are folded away."""


def render(built: Built, link: Callable[[str], str] | None = None) -> str:
    """The table as HTML. With `link` (run id -> address of its page) a last column links to the runs of each row."""
    table = built.table
    by_cell = {(cell["row"], cell["column"]): cell for cell in built.frame.to_dict("records")}
    lines = [f'<figure class="table" id="{escape(table.name)}">', f"<figcaption>{escape(table.title)}</figcaption>"]
    lines += [f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(table.title)}"><table>']
    lines += ["<thead>", *_heads(table.columns, link is not None), "</thead>", "<tbody>"]
    for row in table.rows:
        found = [by_cell[row.name, column.name] for column in table.columns]
        cells = "".join(map(_cell, found)) + (_runs(row.title, found, link) if link else "")
        lines.append(f'<tr><th scope="row">{escape(row.title)}</th>{cells}</tr>')
    lines += ["</tbody>", "</table></div>", '<ul class="footer">']
    lines += [f"<li>{escape(line)}</li>" for line in built.footer]
    return "\n".join([*lines, "</ul>", "</figure>"]) + "\n"


def _heads(columns: tuple[Column, ...], with_runs: bool) -> list[str]:
    lines = []
    runs = '<th scope="col" class="text runs">runs</th>' if with_runs else ""
    if any(column.group for column in columns):
        groups = [(group, len(list(members))) for group, members in groupby(columns, key=lambda c: c.group)]
        heads = "".join(f'<th scope="colgroup" colspan="{width}">{escape(group)}</th>' for group, width in groups)
        blank = '<td class="runs"></td>' if with_runs else ""
        lines.append(f"<tr><td></td>{heads}{blank}</tr>")
    titles = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in columns)
    return [*lines, f"<tr><td></td>{titles}{runs}</tr>"]


def _cell(cell: dict[str, Any]) -> str:
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
    return f'<td class="{escape(str(cell["status"]))}"{title}>{ours}</td>'


def _runs(row: str, cells: list[dict[str, Any]], link: Callable[[str], str]) -> str:
    ids = sorted({run_id for cell in cells for run_id in str(cell["runs"]).split()})
    links = "".join(
        f'<a href="{escape(link(run_id))}" aria-label="{escape(f"{row}, run {run_id}")}">{number}</a>'
        for number, run_id in enumerate(ids, 1)
    )
    if len(ids) > MANY:  # folded: sixty open links would fill many screens
        links = f"<details><summary>{len(ids)} runs</summary>{links}</details>"
    return f'<td class="text runs">{links}</td>'
