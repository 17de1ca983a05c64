"""The terminal: what is written to it is text whatever it holds, and its reader may leave."""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_KEPT = "\n\t"
_ACTING = ("Cc", "Cf", "Cs")
"""Unicode's categories of characters that act instead of being seen: ESC, CR, those that turn a line around ..."""


def terminal_text(value: object) -> str:
    """Data as text for a terminal: characters that would act on it are written as `\\x1b` or `\\u202e`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _ACTING else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class _TextOut:
    """A stream that shows everything printed as `terminal_text` does; `stream` is the one behind it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click asks so whether a stream takes bytes
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
    """Everything that is printed inside is text: data cannot act on the terminal, and what the encoding lacks (± on an
    ascii terminal) is a question mark instead of an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    with redirect_stdout(_TextOut(sys.stdout)):
        yield


def rich_console(stderr: bool = False, width: int | None = None) -> Console:
    """rich's console as this project uses it: brackets in texts are brackets (no markup), numbers have no colours.

    rich writes escape sequences of its own, so that texts from data go through `terminal_text` before. It respects
    NO_COLOR and the terminal's width.
    """
    from rich.console import Console

    file: IO[str] = sys.stderr if stderr else getattr(sys.stdout, "stream", sys.stdout)
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def cut(text: str, room: int) -> str:
    """The text, or where it is wider than `room` columns its beginning and `…`."""
    from rich.text import Text

    if room <= 0:
        return ""
    line = Text(text)
    line.truncate(room, overflow="ellipsis")
    return line.plain


def fitted(words: Sequence[str], yielding: Sequence[int], width: int) -> str:
    """Words in one line of at most `width` columns, two spaces between them; those at `yielding` give way, in order."""
    from rich.cells import cell_len

    kept = list(words)
    for place in yielding:
        excess = cell_len("  ".join(filter(None, kept))) - width
        if excess > 0:
            kept[place] = cut(kept[place], cell_len(kept[place]) - excess)
    return "  ".join(filter(None, kept))


def terminal_width(stderr: bool = False) -> int | None:
    """Columns of the terminal that is written to; None where it is none, and lines stay whole."""
    console = rich_console(stderr)
    return console.width if console.is_terminal and not console.is_dumb_terminal else None


def print_wrapped(text: str, stderr: bool = False) -> None:
    """Print sentences: on a terminal each line is broken between words and goes on below, indented; elsewhere whole."""
    text, width = terminal_text(text), terminal_width(stderr)
    if width is not None:
        text = "\n".join(wrapped(line, width) for line in text.split("\n"))
    print(text, file=sys.stderr if stderr else sys.stdout, flush=True)


LABEL = 9
"""Columns of the names that `labelled` puts before texts."""


def labelled(name: str, text: str) -> str:
    """A text beside its name; on a terminal broken between words into a column of its own."""
    width = terminal_width()
    room = 10_000 if width is None else max(20, width - LABEL - 2)
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return aligned(name, parts)


def aligned(name: str, lines: Sequence[str]) -> str:
    """Lines beside a name as they are: commands that shall be copied."""
    return f"{name:>{LABEL}}  " + f"\n{'':{LABEL + 2}}".join(lines)


def wrapped(line: str, width: int) -> str:
    """A line broken between words, indented by two more where it goes on; paths stay whole, to be copied."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def print_now(text: str) -> None:
    """Print lines that also reach a log file at once; a run goes on where nobody reads them any more."""
    try:
        print_wrapped(text)
    except BrokenPipeError:
        reader_is_gone()


def reader_is_gone() -> None:
    """Send the rest of standard output nowhere, after BrokenPipeError: `sdsbench ... | head -1` ends in peace."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
