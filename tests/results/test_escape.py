"""Names and texts from records are displayed as plain text in every output format."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from sdsbench.results import escape
from sdsbench.results.figure_style import drawing, save
from sdsbench.results.tables.build import build
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.render import FORMATS

HOSTILE = "a|b\n\n# c <b>&amp; **x** `y` [l](u) $z$ _w_ ~~s~~ \x1b[31m \u202e \\"


def test_invisible_characters_are_written_as_escapes() -> None:
    assert escape.visible("a\x1b[2J\u202eb\x00\n\tc\r\nd") == "a\\x1b[2J\\u202eb\\x00\n\tc\nd"
    assert escape.one_line(" a\n\n b\tc ") == "a b c"


def test_html_and_markdown_markup_is_escaped() -> None:
    assert escape.html('<a href="x">\x1b') == "&lt;a href=&quot;x&quot;&gt;\\x1b"
    text = escape.markdown(HOSTILE)
    assert "\n" not in text
    for letter in "|*`$_~<&":
        assert all(text[i - 1] == "\\" for i, found in enumerate(text) if found == letter), letter
    assert "[l]\\(u)" in text, "it must not become a link"
    assert escape.markdown("[a][b] [a]: x ~~y~~ __z__") == r"[a]\[b] [a]\: x \~\~y\~\~ \_\_z\_\_"
    for plain in ("train_set < 3, p < 0.001", "+2.5 [-15.2, 20.2]", "R&D", "a ~ b", "(x)"):
        assert escape.markdown(plain).replace("R\\&D", "R&D") == plain


def test_latex_commands_and_line_breaks_are_escaped() -> None:
    text = escape.latex("100% of $x_1$ & {y}#\n\n[z]*\\foo^~ 模 é")
    expected = r"100\% of \$x\_1\$ \& \{y\}\# {[}z{]}{*}\textbackslash{}foo\textasciicircum{}\textasciitilde{} "
    assert text == expected + "{[}U+6A21{]} é"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2", "@x", "\t=1"])
def test_csv_cells_start_no_spreadsheet_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(escape.csv(pd.DataFrame({"name": [text, "plain"], "value": [-1.5, 2.0]})))))
    assert rows == [["name", "value"], ["'" + text, "-1.5"], ["plain", "2"]]


@pytest.mark.parametrize("text", ["$\\foo{$", "_hidden", "$x$ and $y$", "a\nb\x1b", "\\$"])
def test_figures_show_names_unchanged(tmp_path: Path, text: str) -> None:
    """matplotlib must not parse a name such as `$\\foo{$` as a formula, which would raise."""
    with warnings.catch_warnings(), drawing():
        warnings.simplefilter("error")
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label=escape.figure(text))
        axes.legend()
        svg = save(figure, tmp_path / "f", "a name")
    assert escape.html(escape.one_line(text)).replace("&#x27;", "'") in svg


@pytest.mark.parametrize("kind", FORMATS)
def test_tables_with_hostile_names_keep_their_structure(kind: str) -> None:
    rows = tuple(Row(f"={name}", HOSTILE, {}) for name in "ab")
    table = Table("t", HOSTILE, rows, (Column("@c", HOSTILE, {}, group=HOSTILE),))
    text = FORMATS[kind][1](build(table, []))
    assert "\x1b" not in text and "\u202e" not in text and "<b>" not in text.replace("\\<b>", "")
    if kind == "markdown":
        assert sum(line.startswith("|") for line in text.splitlines()) == 4
    if kind == "csv":
        assert [row[0] for row in csv.reader(io.StringIO(text))][1:] == ["'=a", "'=b"]
