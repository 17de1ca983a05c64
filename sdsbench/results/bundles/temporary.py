"""Temporary folders that are removed at process exit; those of a killed process are removed by the next process.

A living process holds a file lock (flock) on each of its folders, which the kernel releases when the process ends. An
unlocked folder of this user is therefore left over.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "sdsbench-unpacked-"
_held: dict[Path, int] = {}  # folder -> file descriptor that holds its lock


def folder() -> Path:
    """Create a temporary folder for this process and lock it."""
    _clear()
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        handle = _handle(made)
        if handle is not None and (_locked(handle) is not False) and made.is_dir():
            _held[made] = handle
            return made
        if handle is not None:  # before we locked it, another process removed it as left over
            os.close(handle)


def remove(made: Path) -> None:
    """Remove one of this process's folders now, not only at exit."""
    shutil.rmtree(made, ignore_errors=True)
    os.close(_held.pop(made))


@functools.cache
def _clear() -> None:
    """Remove the folders that killed processes left, and register the removal of this process's own at exit."""
    atexit.register(_remove_all, os.getpid())
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with _open(path) as handle:
            if handle is not None and os.fstat(handle).st_uid == os.getuid() and _locked(handle):
                shutil.rmtree(path, ignore_errors=True)


def _remove_all(owner: int) -> None:
    if os.getpid() == owner:  # a forked child must not remove its parent's folders
        for made in list(_held):
            remove(made)


@contextmanager
def _open(path: Path) -> Iterator[int | None]:
    handle = _handle(path)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _handle(path: Path) -> int | None:
    """A file descriptor of a folder, never following links; None if the folder does not exist (any more)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _locked(handle: int) -> bool | None:
    """Whether the lock was free and is now held by us; None if the file system does not support locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
