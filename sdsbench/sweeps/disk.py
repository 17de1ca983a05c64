"""Disk usage of plans and runs, and the files that can be deleted.

A run's record, answers, step log, probes and trained tensors are never deleted, but those of an earlier training that
were set aside are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile, Owned
from sdsbench.core.lock import owned, owner_lives
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import root_of

CHECKPOINTS = ("checkpoint-*", ".checkpoint-*")
SUPERSEDED = (
    "damaged-checkpoint-*", "record.replaced-*.json", "record.damaged-*.json",
    "adapter.replaced-*", "probes.replaced-*",
)  # fmt: skip


@dataclass(frozen=True)
class Removable:
    """A file or folder of a run that can be deleted, and the reason."""

    run: Path
    path: Path
    bytes: int
    reason: str


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; symbolic links are counted, not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum(bytes_of(Path(entry.path)) for entry in os.scandir(path))


def run_folders(plan: Plan, placing: Mapping[str, Any]) -> list[Path]:
    """The existing folders of a plan's runs."""
    root = root_of(plan, placing)
    return [folder for identity in plan.manifest.runs if (folder := root / identity).is_dir()]


def removable(run: Path) -> Iterator[Removable]:
    """Yield checkpoints of a finished run, and what was set aside: records, checkpoints, trained tensors, probes.

    Yields nothing for a run that a living process works on, or whose folder is a symbolic link.
    """
    if run.is_symlink() or owner_lives(run):
        return
    try:
        done = read_record(run / "record.json").status == "done"
    except (DamagedFile, OSError):
        done = False
    for patterns, reason, wanted in (
        (CHECKPOINTS, "checkpoint of a finished run", done),
        (SUPERSEDED, "set aside", True),
    ):
        for path in sorted(path for pattern in patterns for path in run.glob(pattern)) if wanted else ():
            yield Removable(run, path, bytes_of(path), reason)


def remove(found: Removable) -> bool:
    """Delete it under the run's lock; returns whether it was deleted (not if a process now works on the run)."""
    try:
        with owned(found.run):
            if found.path.is_dir() and not found.path.is_symlink():
                shutil.rmtree(found.path)
            else:
                found.path.unlink(missing_ok=True)
    except Owned:
        return False
    return True
