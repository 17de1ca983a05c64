"""Terminal output: control characters in data are escaped, and a closed pipe (`| head`) is not an error."""

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
