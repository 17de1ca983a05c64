"""One process a run: an advisory lock that the kernel drops when its owner dies, whatever the clock says."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.errors import Refused


@contextmanager
def owned(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the run folder's lock. Raises Refused at once where a living process has it (or waits for it).

    Works on shared file systems that support fcntl locks (NFS 3 with lockd, NFS 4, Lustre with flock, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip()
            raise Refused(f"{folder.name}: another process works on this run ({owner or 'unknown'}).") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.uname().nodename} process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
