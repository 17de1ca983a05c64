"""LaTeX with booktabs. Needs in the preamble: \\usepackage{booktabs,graphicx} and UTF-8 input (LaTeX's default)."""

from __future__ import annotations

from itertools import groupby

from sdsbench.results.tables.build import Built
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.render.texts import CellTexts, texts

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def render(built: Built) -> str:
    table = built.table
    by_cell = {(cell["row"], cell["column"]): texts(cell) for cell in built.frame.to_dict("records")}
    body: list[str] = []
    for row in table.rows:
        cells = [by_cell[row.name, column.name] for column in table.columns]
        body.append(" & ".join([escape(row.title), *(_ours(cell) for cell in cells)]) + r" \\")
        if any(cell.paper for cell in cells):
            body.append(" & ".join(["", *(_paper(cell) for cell in cells)]) + r" \\[2pt]")
    label = table.name.replace("/", ":").replace("_", "-")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}[p]",
            r"\centering",
            rf"\caption{{{escape(table.title)}}}\label{{tab:{label}}}",
            r"\setlength{\tabcolsep}{3pt}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            *_heads(table.columns),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip\begin{minipage}{\linewidth}\scriptsize\raggedright",
            *(escape(line) + r"\par" for line in built.footer),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _heads(columns: tuple[Column, ...]) -> list[str]:
    lines = []
    if any(column.group for column in columns):
        top, rules, at = [""], [], 2
        for group, members in groupby(columns, key=lambda column: column.group):
            width = len(list(members))
            top.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}" if group else "")
            at += width
        lines += [" & ".join(top) + r" \\", "".join(rules)]
    return [*lines, " & ".join(["", *(escape(column.title) for column in columns)]) + r" \\"]


def _ours(t: CellTexts) -> str:
    text = escape(t.ours)
    text = {"best": rf"\textbf{{{text}}}", "among_best": rf"\underline{{{text}}}"}.get(t.mark, text)
    rest = " ".join(part for part in (t.spread, t.note) if part)
    return rf"{text} {{\scriptsize {escape(rest)}}}" if rest else text


def _paper(t: CellTexts) -> str:
    if not t.paper:
        return ""
    difference = f" ({t.difference})" if t.difference else ""
    return rf"{{\scriptsize\textit{{{escape(t.paper)}}}{escape(difference)}}}"
