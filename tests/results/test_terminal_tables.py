"""Markdown on a terminal of 80 columns: aligned, within its width, wrapped between words; elsewhere unchanged."""

from __future__ import annotations

import re

import pytest

from sdsbench.results import escape
from sdsbench.results.tables.render import markdown
from sdsbench.results.terminal import print_markdown, styled

TITLES = ("Methods of a title that is too long for one line of a terminal", "grid")
NAMES = ["LoRA, r 8", "a | b *c* <u>", "SDS-LoRA with a title of many words, r 8"]


def screen(capsys: pytest.CaptureFixture[str]) -> str:
    """The printed text without bold and underlined styles."""
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)


def document(columns: int) -> str:
    heads = ["", *(f"model: task {number}" for number in range(columns))]
    rows = []
    for number, name in enumerate(NAMES):  # every column has several values, so that none is stated apart
        middle = [f"81.4{number} ±0.60 (10)"] * (columns - 2)
        rows.append([escape.markdown(name), *middle, f"**82.97** (1{number})", f"<u>7</u> ({number})<br>paper 8"])
    lines = [markdown.heading(*TITLES), "", *map(markdown.line, [heads, ["---", *["--:"] * columns], *rows])]
    return "\n".join([*lines, "", f"- {escape.markdown('Mean [1, 2] of ' + 'several words ' * 12)}"]) + "\n"


def test_markdown_is_printed_as_it_is_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_markdown(document(9))
    assert capsys.readouterr().out == document(9)


@pytest.mark.parametrize("columns", [2, 9])
def test_table_fits_the_terminal(columns: int, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    print_markdown(document(columns))
    text = screen(capsys)
    assert max(map(len, text.splitlines())) <= 80
    for markup in ("|  ", "---", "--:", "**", "</u>", "<br>", "\\"):
        assert markup not in text
    words = " ".join(text.split())
    assert ("81.40 ±0.60 (10)" in words) == (columns > 2)
    assert "a | b *c* <u>" in words and "- Mean [1, 2] of several words" in words
    assert text.count("82.97 (1") == 3 and text.count("paper 8") == 3
    assert len([line for line in text.splitlines() if line.startswith("LoRA,")]) == (1 if columns == 2 else 3)


def test_column_with_one_value_is_stated_once_where_the_table_is_too_wide(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a task with a name", name, "82.97 ±0.60", *["x" * 12] * 4] for name in ("lora", "pissa")]
    lines = [["task", "method", *"abcde"], ["---", "---", *["--:"] * 5], *rows]
    print_markdown("\n".join(map(markdown.line, lines)) + "\n")
    first, *others = screen(capsys).splitlines()
    assert first == "task: a task with a name; a: 82.97 ±0.60; b: xxxxxxxxxxxx; c: xxxxxxxxxxxx; d:"
    assert others[0] == "  xxxxxxxxxxxx; e: xxxxxxxxxxxx" and [line.strip() for line in others[1:]] == [
        "method", "lora", "pissa",
    ]  # fmt: skip


def test_marks_of_the_best_methods_are_styles() -> None:
    text = styled("<u>2.78</u> ±1 **3** \\<u>")
    assert text.plain == "2.78 ±1 3 <u>"
    assert [(text.plain[span.start : span.end], span.style) for span in text.spans] == [
        ("2.78", "underline"),
        ("3", "bold"),
    ]
