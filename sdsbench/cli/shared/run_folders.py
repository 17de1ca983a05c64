"""Finding a run by id, by a prefix of its id, or by folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import some_of
from sdsbench.results.frames import find_records

_SHOWN = 5
_PLANS_SHOWN = 12


def run_folder(text: str, roots: Sequence[str], or_plan: bool = False) -> Path:
    """The run folder given by `text`: a folder, or the id (or a prefix of it) of a run below `roots`.

    Raises ConfigError if no run or several runs match; with `or_plan`, its message lists the plans, which the command
    takes as well.
    """
    if text and Path(text).is_dir():
        return Path(text)
    folders: dict[str, Path] = {}
    for path, _ in find_records([root for root in roots if Path(root).exists()]):
        folders.setdefault(path.parent.name, path.parent)
    accepted = f"a run folder, or the id of a run in {', '.join(roots)}"
    others: list[str] = []
    if or_plan:
        from sdsbench.sweeps import plan as plans

        others = plans.names()
        listed = some_of(others, _PLANS_SHOWN) or "none"
        accepted = f"a run folder, the id of a run in {', '.join(roots)}, or a plan (in {plans.PLANS}: {listed})"
    return folders[completed("run", text, folders, accepted, others)]


def completed(name: str, text: str, known: Iterable[str], accepted: str, others: Iterable[str] = ()) -> str:
    """The only known id that begins with `text`. Raises ConfigError if none or several do.

    `others` are names that the error may suggest besides the ids.
    """
    ids = sorted(known)
    if text in ids:
        return text
    found = [identity for identity in ids if text and identity.startswith(text)]
    if len(found) == 1:
        return found[0]
    shown = some_of(found, _SHOWN)
    advice = f"Several begin so: {shown}." if found else nearest(text, [*ids, *others])
    raise ConfigError([Problem(name, text, accepted, advice)])
