"""Names that become folders, lines of SLURM scripts and cells of pages: one list of allowed characters for each kind.

They are checked where they are made and where they are read, since a plan or a record may come from somebody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError

from sdsbench.core.errors import ConfigError, Problem

_PART = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
NAME_WORDS = "a letter or digit, then up to 99 letters, digits, dots, dashes and underscores (several such by slashes)"
Name = Annotated[str, StringConstraints(pattern=f"^{_PART}(/{_PART}){{0,3}}$")]
"""Of a plan, and so of its folder, its SLURM jobs and the sweep that it is made from."""

RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Of a run: the name of its folder (runs/configuration/identity.py)."""

CellKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
"""Of a tuned cell of a plan."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def name_problem(key: str, name: str) -> Problem | None:
    """What is wrong with a name that somebody chose."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return Problem(key, name, NAME_WORDS)
    return None


def require_printable(key: str, path: Path) -> None:
    """Raises ConfigError where a path holds a character that does not print, such as a line's end."""
    if not str(path).isprintable():
        raise ConfigError([Problem(key, str(path), "a path without control characters")])
