"""Allow one process per run: an advisory lock that the kernel releases when its owner dies; no clock is involved."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.errors import Owned, Refused
from sdsbench.core.reading import kind_of

_FLOCK = "hhlli"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def owner_lives(folder: Path) -> bool:
    """Whether a living process holds the run folder's lock; checked without acquiring it.

    The owner must not call this: closing any handle of the file would release its lock.
    """
    try:
        handle = _open(folder, 0)
    except (OSError, Refused):
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
    finally:
        os.close(handle)


def _open(folder: Path, more: int) -> int:
    """Open the lock file. Raises Refused if it is a link, a FIFO or a folder."""
    path = folder / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | more, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise Refused(f"{path}: {kind_of(path.lstat().st_mode)} where a file belongs. Remove it.") from None
        raise
    if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(f"{path}: {kind_of(mode)} where a file belongs. Remove it.")
    return handle


@contextmanager
def owned(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the run folder's lock. Raises Owned at once where a living process has it (or waits for it).

    Works on shared file systems that support fcntl locks (NFS 3 with lockd, NFS 4, Lustre with flock, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _open(folder, os.O_CREAT)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip()
            raise Owned(f"{folder.name}: another process works on this run ({owner or 'unknown'}).") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.uname().nodename} process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
