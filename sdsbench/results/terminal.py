"""Print this package's Markdown: on a terminal as aligned text that fits its width, elsewhere as it is."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from sdsbench.core.console import print_table, print_wrapped, rich_console, terminal_text, terminal_width

if TYPE_CHECKING:
    from rich.text import Text

_CELL = re.compile(r"(?:\\.|[^|\\])+")
_PIECE = re.compile(r"\\(?P<letter>.)|(?P<mark>\*\*|</?u>)|(?P<end><br>)|(?P<plain>[^\\<*]+|.)")


def print_markdown(text: str) -> None:
    """Print tables, list items and paragraphs as the functions of this package write them in Markdown."""
    if terminal_width() is None:
        print(text, end="")
        return
    for piped, lines in groupby(text.removesuffix("\n").split("\n"), lambda line: line.startswith("|")):
        if piped:
            _print_table(list(lines))
        else:
            for line in lines:
                _print_line(line)


def _print_table(lines: list[str]) -> None:
    heads, sides, *rows = ([cell.strip() for cell in _CELL.findall(line)] for line in lines)
    right = {place for place, side in enumerate(sides) if side.endswith(":")}
    keys = min(right, default=1)  # the columns of words before the first one of numbers name a row
    print_table([styled(head).plain for head in heads], [[*map(styled, row)] for row in rows], max(1, keys), right)


def _print_line(line: str) -> None:
    if not line.startswith("**"):
        print_wrapped(styled(line).plain)
        return
    rich_console().print(styled(line))


def styled(markdown: str) -> Text:
    """Markdown of one line as text: bold and underlined words, `<br>` as a line break, escapes removed."""
    from rich.text import Text

    shown, styles = Text(), dict.fromkeys(("bold", "underline"), False)
    for piece in _PIECE.finditer(markdown):
        if mark := piece["mark"]:
            styles["bold" if mark == "**" else "underline"] ^= True
        else:
            plain = "\n" if piece["end"] else piece["letter"] or piece["plain"]
            shown.append(terminal_text(plain), " ".join(name for name, on in styles.items() if on))
    return shown
