"""Files that are whole or absent: written beside their place, flushed to disk, renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.errors import DiskRefuses

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # the disk's only where they are about the folder


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns errors of a full or read-only disk, or of missing rights below `folder`, into DiskRefuses."""
    try:
        yield
    except Exception as error:
        reason = disk_reason(error, folder)
        if reason is None or isinstance(error, DiskRefuses):
            raise
        raise DiskRefuses(
            f"the disk refuses: {reason}. Everything finished is intact; make room or rights and start again."
        ) from None


def disk_reason(error: BaseException, folder: Path) -> str | None:
    """What the disk refused, or None where the error is not the disk's. safetensors keeps only the system's text."""
    if isinstance(error, OSError):
        place = str(error.filename)
        ours = place.startswith(str(folder)) or str(folder).startswith(place)
        return str(error) if error.errno in _DISK or (error.errno in _OURS and ours) else None
    if type(error).__name__ == "SafetensorError" and any(os.strerror(code) in str(error) for code in _DISK):
        return str(error)
    return None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` so that no reader and no crash ever sees a part of it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
