"""Terminal output: control characters in data are escaped, and a closed pipe (`| head`) is not an error."""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_KEPT = "\n\t"
_ACTING = ("Cc", "Cf", "Cs")
"""Unicode categories of control characters: ESC, CR, bidirectional marks and the like."""


def terminal_text(value: object) -> str:
    """Text that is safe to print on a terminal: control characters are written as `\\x1b` or `\\u202e`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _ACTING else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class _TextOut:
    """A text stream that passes everything through `terminal_text` before writing it to `stream`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click writes b"" to test whether a stream takes bytes
            raise TypeError(f"text expected, not {type(text).__name__}")
        self.stream.write(terminal_text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def printing_text() -> Iterator[None]:
    """Escape everything printed inside the block, so data cannot control the terminal; characters that the encoding
    lacks (± on an ascii terminal) are printed as question marks instead of raising an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    with redirect_stdout(_TextOut(sys.stdout)):
        yield


def rich_console(stderr: bool = False, width: int | None = None) -> Console:
    """A rich console without markup (brackets stay brackets) and without highlighting of numbers.

    rich writes escape sequences of its own, so that texts from data go through `terminal_text` before. It respects
    NO_COLOR and the terminal's width.
    """
    from rich.console import Console

    file: IO[str] = sys.stderr if stderr else getattr(sys.stdout, "stream", sys.stdout)
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def cut(text: str, room: int) -> str:
    """The text, truncated with `…` if it is wider than `room` columns."""
    from rich.text import Text

    if room <= 0:
        return ""
    line = Text(text)
    line.truncate(room, overflow="ellipsis")
    return line.plain


def fitted(words: Sequence[str], yielding: Sequence[int], width: int) -> str:
    """Words in one line of at most `width` columns, separated by two spaces; if too long, those at `yielding` are
    shortened in order."""
    from rich.cells import cell_len

    kept = list(words)
    for place in yielding:
        excess = cell_len("  ".join(filter(None, kept))) - width
        if excess > 0:
            kept[place] = cut(kept[place], cell_len(kept[place]) - excess)
    return "  ".join(filter(None, kept))


def terminal_width(stderr: bool = False) -> int | None:
    """Columns of the terminal that output goes to; None if it is not a terminal (lines are then not wrapped)."""
    console = rich_console(stderr)
    return console.width if console.is_terminal and not console.is_dumb_terminal else None


def print_wrapped(text: str, stderr: bool = False) -> None:
    """Print sentences: on a terminal each line is wrapped with an indent, elsewhere it is left whole."""
    text, width = terminal_text(text), terminal_width(stderr)
    if width is not None:
        text = "\n".join(wrapped(line, width) for line in text.split("\n"))
    print(text, file=sys.stderr if stderr else sys.stdout, flush=True)


GAP = 2
"""Columns of the terminal between two columns of a table."""
UNBROKEN = 16
"""Numbers up to this width (with their interval) are not wrapped in a table."""

Rows = Sequence[Sequence["str | Text"]]


def print_table(heads: Sequence[str], rows: Rows, keys: int = 1, right: Collection[int] = ()) -> None:
    """Print aligned columns; on a terminal within its width, cells wrapped between words.

    `keys`: number of first columns that name a row; `right`: positions of the columns of numbers. If the longest words
    do not fit beside each other, columns with one value are stated above the table, and the others are printed in
    several tables, each with the key columns.
    """
    from rich.table import Table
    from rich.text import Text

    width = terminal_width() or 10_000
    console = rich_console(width=width)
    kept = list(range(len(heads)))
    if narrowest(heads, rows, right) > width:
        kept, stated = _unequal(heads, rows, keys)
        if stated:
            print_wrapped("; ".join(stated))
    named = [place for place in kept if place < keys]
    sizes = [_sizes(heads[place], [row[place] for row in rows], place in right) for place in range(len(heads))]
    for number, part in enumerate(_parts(kept, named, [low for low, _ in sizes], width)):
        widths = _widths([sizes[place] for place in part], width - GAP * (len(part) - 1))
        narrowed = any(columns < sizes[place][1] for place, columns in zip(part, widths, strict=True))
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=any(heads))
        table.leading = int(narrowed and any(heads))  # an empty line between rows of several lines
        for place, columns in zip(part, widths, strict=True):
            head = Text(terminal_text(heads[place]))
            justify: Literal["right", "left"] = "right" if place in right else "left"
            table.add_column(head, justify=justify, width=columns, overflow="fold")
        for row in rows:
            cells = (row[place] for place in part)
            table.add_row(*(Text(terminal_text(cell)) if isinstance(cell, str) else cell for cell in cells))
        if number:
            print()
        sys.stdout.flush()
        console.print(table)


def narrowest(heads: Sequence[str], rows: Rows, right: Collection[int] = ()) -> int:
    """Columns of the terminal that a table takes at least if it is wrapped only between words."""
    columns = range(len(heads))
    lows = (_sizes(heads[place], [row[place] for row in rows], place in right)[0] for place in columns)
    return sum(lows) + GAP * (len(heads) - 1)


def _unequal(heads: Sequence[str], rows: Rows, keys: int) -> tuple[list[int], list[str]]:
    """(columns to print, `head: value` of those with one value); empty columns are neither."""
    kept, stated = [], []
    for place, head in enumerate(heads):
        values = {str(row[place]) for row in rows}
        if place < keys:  # a row that others are compared with names no other row
            values -= {""}
        if len(values) > 1 or len(rows) < 2 or any("\n" in value for value in values):
            kept.append(place)
        elif values - {""}:
            stated.append(f"{head}: {values.pop()}")
    return kept, stated


def _sizes(head: str, cells: Sequence[str | Text], number: bool) -> tuple[int, int]:
    """(smallest width without a break in a word, width of the longest line) of a column."""
    from rich.cells import cell_len

    texts = [str(cell) for cell in cells]
    low = max(map(cell_len, " ".join([head, *texts]).split()), default=1)
    lines = [cell_len(line) for text in texts for line in text.split("\n")]
    if number:
        low = max(low, min(UNBROKEN, max(lines, default=1)))
    return low, max(low, cell_len(head), *lines)


def _parts(kept: Sequence[int], named: Sequence[int], lows: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns of each table, all with the columns `named`."""
    part = list(named)
    for place in kept:
        if place in named:
            continue
        if len(part) > len(named) and sum(lows[other] + GAP for other in part) + lows[place] > width:
            yield part
            part = list(named)
        part.append(place)
    yield part


def _widths(sizes: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Widths of columns that together take at most `room` if their smallest widths do; the widest are wrapped first."""
    cap = max((most for _, most in sizes), default=1)
    while True:
        widths = [min(most, max(low, cap)) for low, most in sizes]
        if sum(widths) <= room or cap <= 1:
            return widths
        cap -= 1


LABEL = 9
"""Columns of the names that `labelled` puts before texts."""


def labelled(name: str, text: str) -> str:
    """A text beside its name; on a terminal the text is wrapped in its own column."""
    width = terminal_width()
    room = 10_000 if width is None else max(20, width - LABEL - 2)
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return aligned(name, parts)


def aligned(name: str, lines: Sequence[str]) -> str:
    """Lines beside a name without wrapping, for commands that users copy."""
    return f"{name:>{LABEL}}  " + f"\n{'':{LABEL + 2}}".join(lines)


def wrapped(line: str, width: int) -> str:
    """A line wrapped between words, continuation lines indented by two more spaces; paths are kept whole for
    copying."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def print_now(text: str) -> None:
    """Print lines and flush, so that a log file has them at once; a closed reader does not stop the run."""
    try:
        print_wrapped(text)
    except BrokenPipeError:
        reader_is_gone()


def reader_is_gone() -> None:
    """Discard further standard output after BrokenPipeError, so that `sdsbench ... | head -1` ends without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
