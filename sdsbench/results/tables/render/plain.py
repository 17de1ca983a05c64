"""Rendering a frame of texts with notes below as Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from sdsbench.results import escape
from sdsbench.results.tables.render import latex, markdown


def render(kind: str, shown: pd.DataFrame, title: str, name: str, columns: str, notes: Sequence[str] = ()) -> str:
    """The frame as `kind` markdown, latex or html; `columns` is the column specification of LaTeX's tabular."""
    if kind == "latex":
        return _latex(shown, title, columns, notes)
    if kind == "html":
        items = "".join(f"<li>{escape.html(note)}</li>\n" for note in notes)
        table = shown.map(escape.visible).to_html(index=False, border=0)
        return f"<h2>{escape.html(title)}</h2>\n{table}\n" + (f"<ul>\n{items}</ul>\n" if notes else "")
    sides = ["--:" if letter == "r" else "---" for letter in re.sub(r"{.*?}", "", columns)]
    rows = ([escape.markdown(value) for value in row] for row in shown.to_numpy().tolist())
    lines = [markdown.heading(title, name), "", *map(markdown.line, [list(shown.columns), sides, *rows])]
    return "\n".join([*lines, *([""] if notes else []), *(f"- {escape.markdown(note)}" for note in notes)]) + "\n"


def _latex(shown: pd.DataFrame, title: str, columns: str, notes: Sequence[str]) -> str:
    """LaTeX, rotated by 90 degrees because tables of words are wide."""
    columns = columns.replace("p{", r">{\raggedright\arraybackslash}p{")
    caption = rf"\caption{{{escape.latex(title)}}}"
    body = [" & ".join(escape.latex(str(value)) for value in row) + r" \\" for row in shown.to_numpy().tolist()]
    heads = " & ".join(map(escape.latex, shown.columns)) + r" \\"
    if len(body) > latex.SIDEWAYS_LINES:
        begin, end = r"\begin{landscape}\footnotesize", r"\end{landscape}"
        table = [rf"\begin{{longtable}}{{{columns}}}", caption + r"\\", r"\toprule", heads, r"\midrule", r"\endhead"]
        table += [r"\bottomrule", r"\endfoot", *body, r"\end{longtable}"]
    else:
        begin, end = r"\begin{sidewaystable}[p]\footnotesize", r"\end{sidewaystable}"
        table = [caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heads, r"\midrule", *body, r"\bottomrule"]
        table += [r"\end{tabular}\par\smallskip"]
    return "\n".join([f"% needs {latex.PREAMBLE}", begin, *table, *latex.footer(notes, False), end, ""])
