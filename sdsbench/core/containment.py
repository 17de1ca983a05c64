"""Check that paths stay inside their root folder and that a run's folder contains no links.

A results folder that is a link itself, to a scratch disk say, is the user's own choice and stays allowed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sdsbench.core.errors import Refused
from sdsbench.core.reading import kind_of

FILES = ("record.json", "config.yaml", "metrics.jsonl", "lock", "private.jsonl", "tracker.log")
FOLDERS = ("samples", "adapter", "probes")
OTHERS = ("wandb", ".wandb")  # W&B creates links in these folders; this package writes nothing there


def contained(root: Path, *parts: str) -> Path:
    """The path of `parts` below `root`. Raises Refused if, after following links, it lies outside `root`.

    Also raises Refused for parts with control characters.
    """
    path = root.joinpath(*parts)
    if any(ord(letter) < 32 or ord(letter) == 127 for part in parts for letter in part):
        raise Refused(f"{str(path)!r}: accepted: a name without control characters.")
    try:
        inside = path.resolve().is_relative_to(root.resolve()) and path.resolve() != root.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise Refused(f"{path}: not a path ({error}).") from None
    if not inside:
        raise Refused(f"{path}: accepted: a path inside {root}; this one leads out of it.")
    return path


def folder_in(root: Path, name: str) -> Path:
    """The folder `name` in `root`, created if absent. Raises Refused if it lies outside `root` or is not a folder."""
    folder = contained(root, name)
    if os.path.lexists(folder) and not folder.is_dir():
        raise Refused(f"{folder}: accepted: a folder; something else lies there. Move it away.")
    folder.mkdir(exist_ok=True)
    return folder


def require_plain(folder: Path) -> None:
    """Raises Refused if a run's folder, or a path that a run writes in it, is a link or of the wrong file type.

    An absent folder is fine.
    """
    if folder.is_symlink():
        raise Refused(f"{folder}: a run's folder that is a link is not written into. Accepted: a folder of its own.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Refused(f"{folder}: {kind_of(folder.lstat().st_mode)} where the folder of a run belongs.")
    for entry in os.scandir(folder):
        if entry.name in OTHERS:
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in FILES and is_folder:
            raise Refused(f"{entry.path}: a folder where a file belongs. Move it away.")
        if entry.name in FOLDERS and not is_folder and not entry.is_symlink():
            raise Refused(f"{entry.path}: a file where a folder belongs. Move it away.")
        _require_plain_entry(entry)


def _require_plain_entry(entry: os.DirEntry[str]) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        for below in os.scandir(entry.path):
            _require_plain_entry(below)
    elif not stat.S_ISREG(mode):
        raise Refused(
            f"{entry.path}: {kind_of(mode)} in a run's folder, which is neither followed nor waited for. Remove it."
        )
