"""Allowed characters of names that are used as folders, in SLURM scripts and in tables; one pattern per kind of name.

Names are checked when created and when read, since a plan or record may come from others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError

from sdsbench.core.errors import ConfigError, Problem

_PART = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
NAME_WORDS = "a letter or digit, then up to 99 letters, digits, dots, dashes and underscores (several such by slashes)"
Name = Annotated[str, StringConstraints(pattern=f"^{_PART}(/{_PART}){{0,3}}$")]
"""Name of a plan, its folder, its SLURM jobs and its sweep."""

RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""ID of a run, also the name of its folder (runs/configuration/identity.py)."""

CellKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
"""Key of a tuned cell of a plan."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def name_problem(key: str, name: str) -> Problem | None:
    """Describes what is wrong with a user's name for something."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return Problem(key, name, NAME_WORDS)
    return None


def require_printable(key: str, path: Path) -> None:
    """Raises ConfigError if a path contains a non-printing character, such as a line break."""
    if not str(path).isprintable():
        raise ConfigError([Problem(key, str(path), "a path without control characters")])
