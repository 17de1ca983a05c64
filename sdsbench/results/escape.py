"""Escaping of untrusted text: one function per output format.

Names, titles, messages and answers come from records, plans and files that somebody else may have written. Each output
format interprets some characters as markup or commands; these functions escape them. The one for the terminal is in
core/console.py.
"""

from __future__ import annotations

import html as standard
import re
import unicodedata

import pandas as pd

from sdsbench.core.console import terminal_text

_MARKDOWN = re.compile(
    r"[\\`*|$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|~(?=~)|(?<=~)~|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|(?<=\])[(\[:]"
)
"""Characters that begin Markdown markup, a table cell, a formula, a tag, an entity or a link; `[1, 2]` is no match."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "<": "$<$", ">": "$>$", "×": r"$\times$", "–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "§": r"\S{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # LaTeX would read these two as an argument of a preceding \\
}  # fmt: skip
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet recognises a formula."""


def visible(text: str) -> str:
    """The text with invisible characters written out (ESC as \\x1b), except line ends and tabs."""
    return terminal_text(text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text with all invisible characters written out, in one line."""
    return " ".join(visible(text).split())


def html(text: str) -> str:
    """Escape for HTML elements and quoted attributes."""
    return standard.escape(visible(text))


def markdown(text: str) -> str:
    """Escape for a Markdown paragraph or table cell."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def latex(text: str) -> str:
    """Escape for LaTeX with UTF-8 input; characters missing in its standard fonts are replaced by their code point."""
    return "".join(_LATEX.get(letter) or _latex_letter(letter) for letter in one_line(text))


def _latex_letter(letter: str) -> str:
    if letter.isascii() or set(unicodedata.normalize("NFD", letter)[1:]) & _ACCENTS:
        return letter
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def csv(frame: pd.DataFrame, digits: int = 10) -> str:
    """A frame as CSV; texts that a spreadsheet would run as a formula get a leading apostrophe."""
    return frame.map(_csv_field).to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g")


def _csv_field(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def figure(text: str) -> str:
    """Escape for matplotlib labels: no formula between dollar signs, no leading underscore (hides legend entries)."""
    line = one_line(text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
