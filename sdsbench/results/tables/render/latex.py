r"""LaTeX with booktabs at normal font size; fits the text width and height of a plain `article`.

The first line of the output lists the needed packages; input is UTF-8 (LaTeX's default). A table wider than the text is
rotated, or split if that is not enough; a table with more than 40 lines spans several pages.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sdsbench.results.escape import latex as escape
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.definition import Column, Table
from sdsbench.results.tables.render.cell_texts import CellTexts, texts

PREAMBLE = r"\usepackage{array,booktabs,longtable,rotating,pdflscape}"
LINES = 40
"""Body lines that one upright page holds."""
SIDEWAYS_LINES = 20  # body lines that one rotated page holds
_WIDTH, _SIDEWAYS_WIDTH = 345.0, 550.0  # points: \textwidth and \textheight of article
_LETTER, _SMALL, _GAP = 5.2, 4.2, 6.0  # widths in points: a character at 10 pt and at 7 pt, the gap between columns
_HEAD, _TITLE = 14, 26  # maximum characters per line of a column's heading and of a row's title
_IDS = r"\b[0-9a-f]{16}\b(?:, [0-9a-f]{16}\b)*(?: and \d+ more)?"


@dataclass(frozen=True)
class _Line:
    """A row's title and cells; `paper` is true for the second line, with the paper's numbers."""

    title: str
    cells: Mapping[str, CellTexts]
    paper: bool = False

    def latex(self, columns: Sequence[Column]) -> str:
        form = _paper if self.paper else _ours
        end = r" \\[2pt]" if self.paper else r" \\"
        title = "" if self.paper else stacked(self.title, _TITLE, "l")
        return " & ".join([title, *(form(self.cells[column.name]) for column in columns)]) + end


def render(built: Built, run_ids: bool = False) -> str:
    """The table as LaTeX; `run_ids` keeps run ids in its notes."""
    table = built.table
    by_cell = {(cell["row"], cell["column"]): texts(cell) for cell in built.frame.to_dict("records")}
    lines: list[_Line] = []
    for row in table.rows:
        cells = {column.name: by_cell[row.name, column.name] for column in table.columns}
        lines.append(_Line(row.title, cells))
        if any(cell.paper for cell in cells.values()):
            lines.append(_Line(row.title, cells, paper=True))
    first = max((_width(row.title, _TITLE) for row in table.rows), default=0.0) + _GAP
    widths = [_GAP + max(_width(column.title, _HEAD), *(_cell_width(line, column) for line in lines), 0.0)
              for column in table.columns]  # fmt: skip
    notes = footer([*built.footer, *_long_notes(table, by_cell)], run_ids)
    environment, parts = _layout(table.columns, first, widths, len(lines))
    label = "tab:" + re.sub(r"[^A-Za-z0-9:.-]", "-", table.name.replace("/", ":"))
    written = [f"% needs {PREAMBLE}"]
    for number, columns in enumerate(parts, 1):
        title = escape(table.title) + (f" ({number} of {len(parts)})" if len(parts) > 1 else "")
        caption = rf"\caption{{{title}}}\label{{{label}{f'-{number}' if len(parts) > 1 else ''}}}"
        body = [
            line.latex(columns) for line in lines if not line.paper or any(line.cells[c.name].paper for c in columns)
        ]
        last = notes if number == len(parts) else []
        written += (_long if environment == "longtable" else _floating)(environment, caption, columns, body, last)
    return "\n".join([*written, ""])


def _long_notes(table: Table, by_cell: Mapping[tuple[str, str], CellTexts]) -> Iterator[str]:
    for row in table.rows:
        for column in table.columns:
            if len(note := by_cell[row.name, column.name].note) > _TITLE:
                yield f"{row.title}, {column.title}: {note}."


def footer(lines: Sequence[str], run_ids: bool) -> list[str]:
    """The notes below a table; run ids are removed unless `run_ids`."""
    return [escape(line if run_ids else without_ids(line)) + r"\par" for line in lines]


def without_ids(line: str) -> str:
    """A note without run ids, which a paper's readers cannot look up."""
    return re.sub(rf"(?:: | in ){_IDS}(?=[;.]|$)", "", re.sub(rf"{_IDS} (?=\S+ by )", "", line))


def _layout(
    columns: Sequence[Column], first: float, widths: Sequence[float], lines: int
) -> tuple[str, list[list[Column]]]:
    """(LaTeX environment, the columns of each part of the table)."""
    if lines > LINES:
        return "longtable", list(_split(columns, first, widths, _WIDTH))
    if first + sum(widths) <= _WIDTH:
        return "table", [list(columns)]
    if lines <= SIDEWAYS_LINES:
        return "sidewaystable", list(_split(columns, first, widths, _SIDEWAYS_WIDTH))
    return "table", list(_split(columns, first, widths, _WIDTH))


def _split(columns: Sequence[Column], first: float, widths: Sequence[float], room: float) -> Iterator[list[Column]]:
    part: list[Column] = []
    used = first
    for column, width in zip(columns, widths, strict=True):
        if part and used + width > room:
            yield part
            part, used = [], first
        part.append(column)
        used += width
    yield part


def _floating(
    environment: str, caption: str, columns: Sequence[Column], body: Sequence[str], notes: Sequence[str]
) -> list[str]:
    return [
        rf"\begin{{{environment}}}[p]",
        r"\centering",
        caption + r"\par\smallskip",
        rf"\setlength{{\tabcolsep}}{{{_GAP / 2:g}pt}}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}",
        r"\toprule",
        *_heads(columns),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip\begin{minipage}{\linewidth}\tiny\raggedright", *notes, r"\end{minipage}"] if notes else []),
        rf"\end{{{environment}}}",
    ]


def _long(
    environment: str, caption: str, columns: Sequence[Column], body: Sequence[str], notes: Sequence[str]
) -> list[str]:
    return [
        rf"\begingroup\setlength{{\tabcolsep}}{{{_GAP / 2:g}pt}}",
        rf"\begin{{{environment}}}{{@{{}}l{'r' * len(columns)}@{{}}}}",
        caption + r"\\",
        r"\toprule",
        *_heads(columns),
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *body,
        rf"\end{{{environment}}}",
        *([r"{\tiny\raggedright\noindent", *notes, "}"] if notes else []),
        r"\endgroup",
    ]


def _heads(columns: Sequence[Column]) -> list[str]:
    lines = []
    if any(column.group for column in columns):
        top, rules, at = [""], [], 2
        for group, members in groupby(columns, key=lambda column: column.group):
            width = len(list(members))
            top.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}" if group else "")
            at += width
        lines += [" & ".join(top) + r" \\", "".join(rules)]
    return [*lines, " & ".join(["", *(stacked(column.title, _HEAD, "r") for column in columns)]) + r" \\"]


def stacked(text: str, letters: int, side: str) -> str:
    """A long title broken into several lines of one cell."""
    lines = textwrap.wrap(text, letters) or [""]
    if len(lines) == 1:
        return escape(lines[0])
    # Each line but the first begins with {} so that none of its letters is read as an argument of the line break.
    return rf"\shortstack[{side}]{{{(chr(92) * 2 + '{}').join(map(escape, lines))}}}"


def _width(text: str, letters: int) -> float:
    return _LETTER * max(map(len, textwrap.wrap(text, letters)), default=0)


def _cell_width(line: _Line, column: Column) -> float:
    t = line.cells[column.name]
    if line.paper:
        return _SMALL * len(f"{t.paper} ({t.difference})") if t.paper else 0.0
    rest = _rest(t)
    return _LETTER * len(t.ours) + (_SMALL * (len(rest) + 1) if rest else 0.0)


def _ours(t: CellTexts) -> str:
    text = escape(t.ours)
    text = {"best": rf"\textbf{{{text}}}", "among_best": rf"\underline{{{text}}}"}.get(t.mark, text)
    rest = _rest(t)
    return rf"{text} {{\scriptsize {escape(rest)}}}" if rest else text


def _rest(t: CellTexts) -> str:
    """The small text beside the number; long notes are only in the notes below the table."""
    note = t.note if len(t.note) <= _TITLE else "see below"
    return " ".join(part for part in (t.spread, note) if part)


def _paper(t: CellTexts) -> str:
    if not t.paper:
        return ""
    difference = f" {escape(f'({t.difference})')}" if t.difference else ""
    return rf"{{\scriptsize\textit{{{escape(t.paper)}}}{difference}}}"
