"""Text of others on its way out: one function for each place where it is shown.

Names, titles, messages and answers come from records, plans and files that somebody else may have written. Each
destination reads some characters as commands; here they become characters again. The terminal has its own function.
"""

from __future__ import annotations

import html as standard
import re
import unicodedata

import pandas as pd

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, half characters, and marks that turn the direction of writing around."""
_MARKDOWN = re.compile(
    r"[\\`*|$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|~(?=~)|(?<=~)~|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|(?<=\])[(\[:]"
)
"""What begins code, emphasis, a cell, a formula, a tag, an entity or a link; `train_set`, `[1, 2]`, `< 1` do not."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "<": "$<$", ">": "$>$", "×": r"$\times$", "–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "§": r"\S{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind \\ these two would be read as its argument
}  # fmt: skip
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a field must not begin with: spreadsheets take it for a formula."""


def visible(text: str) -> str:
    """The text with what cannot be seen written out (ESC as \\x1b); line ends and tabs stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The visible text in one line."""
    return " ".join(visible(text).split())


def html(text: str) -> str:
    """For HTML, in elements and in quoted attributes."""
    return standard.escape(visible(text))


def markdown(text: str) -> str:
    """For a paragraph or a table's cell of Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def latex(text: str) -> str:
    """For LaTeX text with its default UTF-8 input; letters that its standard fonts lack are named by their number."""
    return "".join(_LATEX.get(letter) or _latex_letter(letter) for letter in one_line(text))


def _latex_letter(letter: str) -> str:
    if letter.isascii() or set(unicodedata.normalize("NFD", letter)[1:]) & _ACCENTS:
        return letter
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def csv(frame: pd.DataFrame, digits: int = 10) -> str:
    """A frame as CSV; of texts, those that a spreadsheet would run as a formula get an apostrophe in front."""
    return frame.map(_csv_field).to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g")


def _csv_field(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def figure(text: str) -> str:
    """For a label of a figure: no formula between dollar signs, and no leading underscore, which hides a legend's."""
    line = one_line(text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
