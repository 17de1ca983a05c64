"""One process a run: an advisory lock that the kernel drops when its owner dies, whatever the clock says."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.errors import Owned

_FLOCK = "hhlli"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def owner_lives(folder: Path) -> bool:
    """Whether a living process holds the run folder's lock, found without taking it.

    Not for the owner itself: closing any handle of the file would drop its lock.
    """
    try:
        handle = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
    finally:
        os.close(handle)


@contextmanager
def owned(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the run folder's lock. Raises Owned at once where a living process has it (or waits for it).

    Works on shared file systems that support fcntl locks (NFS 3 with lockd, NFS 4, Lustre with flock, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
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
