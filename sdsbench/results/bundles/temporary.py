"""Temporary folders that go with their process, also where it is killed: the next process removes what such a one left.

A living process holds a lock (flock) of each of its folders, which the kernel drops with it. One of this user's that
nobody holds is left over.
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
_held: dict[Path, int] = {}  # folder -> handle that holds its lock


def folder() -> Path:
    """A new one, for this process alone."""
    _clear()
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        handle = _handle(made)
        if handle is not None and (_locked(handle) is not False) and made.is_dir():
            _held[made] = handle
            return made
        if handle is not None:  # another process took it for one that is left over, before it was locked
            os.close(handle)


def remove(made: Path) -> None:
    """Remove a folder of this process before its end."""
    shutil.rmtree(made, ignore_errors=True)
    os.close(_held.pop(made))


@functools.cache
def _clear() -> None:
    """Remove what killed processes left, and see to it that this one's go at its end."""
    atexit.register(_remove_all, os.getpid())
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with _open(path) as handle:
            if handle is not None and os.fstat(handle).st_uid == os.getuid() and _locked(handle):
                shutil.rmtree(path, ignore_errors=True)


def _remove_all(owner: int) -> None:
    if os.getpid() == owner:  # not in a child that was forked, and ends before
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
    """A handle of a folder, not of what a link leads to; None where there is none (any more)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _locked(handle: int) -> bool | None:
    """Whether the lock was free and is now held; None where the disk knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
