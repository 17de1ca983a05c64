"""Finding a run by id, by a prefix of its id, or by folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import some_of
from sdsbench.results.frames import find_records

_SHOWN = 5


def run_folder(text: str, roots: Sequence[str]) -> Path:
    """The run folder given by `text`: a folder, or the id (or a prefix of it) of a run below `roots`.

    Raises ConfigError if no run or several runs match.
    """
    if text and Path(text).is_dir():
        return Path(text)
    folders: dict[str, Path] = {}
    for path, _ in find_records([root for root in roots if Path(root).exists()]):
        folders.setdefault(path.parent.name, path.parent)
    return folders[completed("run", text, folders, f"a run folder, or the id of a run in {', '.join(roots)}")]


def completed(name: str, text: str, known: Iterable[str], accepted: str) -> str:
    """The only known id that begins with `text`. Raises ConfigError if none or several do."""
    ids = sorted(known)
    if text in ids:
        return text
    found = [identity for identity in ids if text and identity.startswith(text)]
    if len(found) == 1:
        return found[0]
    shown = some_of(found, _SHOWN)
    advice = f"Several begin so: {shown}." if found else nearest(text, ids)
    raise ConfigError([Problem(name, text, accepted, advice)])
